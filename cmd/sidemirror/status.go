package main

import (
	"encoding/json"
	"errors"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/proxycheck"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// status is what "sidemirror status --json" prints.
type status struct {
	OK      bool               `json:"ok"`
	Proxy   *proxyStatus       `json:"proxy,omitempty"` // not under --root
	Engines []engine.State     `json:"engines"`
	Pending []string           `json:"pending"` // files that are not as planned
	Signals []engine.Signal    `json:"signals"` // what engines have not been told yet
	Refused []*problem.Problem `json:"refused"` // why files cannot be as planned
}

// proxyStatus is the proxy of the running host.
type proxyStatus struct {
	Address  string             `json:"address"`
	Answers  bool               `json:"answers"`
	Problems []*problem.Problem `json:"problems"`
}

func newStatusCommand(g *globals) *cobra.Command {
	f := &hostFlags{globals: g}
	var asJSON, short bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say what is in force on this host, and what is amiss",
		Long: `Say which engines are on this host, in which version and with which store, which
of their files have our part and which should and have not, by what the engines
reach sidemirror, and whether it answers. Whatever is amiss comes with its mend.

The exit code is 0 where the host could be looked at, whatever was found; programs
read "ok" in what --json prints.`,
		Example: `  sudo sidemirror status
  sidemirror status --short
  sidemirror status --json | jq .ok`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON && short {
				return usageError{errors.New("--json and --short are two ways to say it; give one")}
			}
			h, plan, err := f.plan(cmd.Context())
			if err != nil {
				return err
			}
			s := newStatus(plan)
			if h.Root == "/" {
				s.Proxy = newProxyStatus(proxycheck.Check(cmd.Context(), plan.Mirror, sdnotify.Units{}.ProxyStatus))
			}
			s.judge()
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(s)
			}
			if short {
				return s.writeShort(cmd.OutOrStdout(), undoing(h.Root))
			}
			return s.write(cmd.OutOrStdout())
		},
	}
	f.addRoot(cmd)
	f.addEngines(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, for programs")
	cmd.Flags().BoolVar(&short, "short", false, "print three lines at most: what is configured, what is amiss most, how to undo it")
	return cmd
}

func newStatus(plan hostconfig.Plan) *status {
	s := &status{
		Engines: plan.Engines, Pending: []string{}, Signals: append([]engine.Signal{}, plan.Signals()...),
		Refused: append([]*problem.Problem{}, plan.Refused...),
	}
	for _, c := range plan.Changes {
		s.Pending = append(s.Pending, c.Path)
	}
	return s
}

func (s *status) judge() {
	s.OK = len(s.Pending)+len(s.Signals)+len(s.Refused) == 0 && (s.Proxy == nil || len(s.Proxy.Problems) == 0)
	for _, e := range s.Engines {
		s.OK = s.OK && len(e.Problems) == 0
	}
}

func newProxyStatus(r proxycheck.Report) *proxyStatus {
	return &proxyStatus{Address: r.Address, Answers: r.Answers, Problems: append([]*problem.Problem{}, r.Problems...)}
}

func (s *status) write(w io.Writer) error {
	p := &printer{w: w, color: colored(w)}
	if s.Proxy != nil {
		text := "answers at " + s.Proxy.Address
		if !s.Proxy.Answers {
			text = "does not answer at " + s.Proxy.Address
		}
		p.printf("%-10s  %s\n", "proxy", printable(text))
		for _, what := range s.Proxy.Problems {
			p.problem("problem", what)
		}
	}
	for _, e := range s.Engines {
		p.state(e)
		for _, file := range e.Files {
			p.file(file)
		}
	}
	for _, what := range s.Refused {
		if !slices.ContainsFunc(s.Engines, func(e engine.State) bool { return slices.Contains(e.Problems, what) }) {
			p.problem("cannot", what)
		}
	}
	switch {
	case s.OK:
		p.paint(green, "all is as planned")
	case len(s.Pending)+len(s.Signals) > 0:
		p.paint(red, "not as planned; see what is to be done: sidemirror plan; do it: sidemirror apply")
	default:
		p.paint(red, "not all is well, see above")
	}
	return p.err
}

// fileStates are the states of a file for a person.
var fileStates = map[engine.FileState]string{
	engine.Missing: "missing", engine.Outdated: "has to be changed", engine.Refused: "cannot be changed",
	engine.Unwanted: "has sidemirror's entry and should not",
}

// file prints one file, and its state if that is not right.
func (p *printer) file(f engine.File) {
	if f.State == engine.InPlace {
		p.printf("            %s\n", printable(f.Path))
		return
	}
	p.paint(red, "            "+printable(f.Path)+"  "+fileStates[f.State])
}
