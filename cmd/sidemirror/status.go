package main

import (
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/proxycheck"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/hostconfig"
)

// status is what "sidemirror status --json" prints.
type status struct {
	OK      bool               `json:"ok"`
	Proxy   *proxyStatus       `json:"proxy,omitempty"` // not under --root
	Engines []hostconfig.State `json:"engines"`
	Pending []string           `json:"pending"` // files that are not as planned
	Signals []string           `json:"signals"` // what engines have not been told yet
	Refused []string           `json:"refused"` // files that cannot be as planned, why, and the mend
}

// proxyStatus is the proxy of the running host.
type proxyStatus struct {
	Address  string         `json:"address"`
	Answers  bool           `json:"answers"`
	Problems []problemShown `json:"problems"`
}

// problemShown is a problem in JSON.
type problemShown struct {
	Code string `json:"code"`
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
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
			return s.write(cmd.OutOrStdout(), plan.Changes)
		},
	}
	f.addRoot(cmd)
	f.addEngines(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, for programs")
	cmd.Flags().BoolVar(&short, "short", false, "print three lines at most: what is configured, what is amiss most, how to undo it")
	return cmd
}

func newStatus(plan hostconfig.Plan) *status {
	s := &status{Engines: plan.Engines, Pending: []string{}, Signals: append([]string{}, plan.Signals()...), Refused: []string{}}
	for _, c := range plan.Changes {
		s.Pending = append(s.Pending, c.Path)
	}
	for _, err := range plan.Refused {
		s.Refused = append(s.Refused, withHint(err))
	}
	return s
}

func (s *status) judge() {
	s.OK = len(s.Pending)+len(s.Signals)+len(s.Refused) == 0 && (s.Proxy == nil || len(s.Proxy.Problems) == 0)
	for _, e := range s.Engines {
		s.OK = s.OK && !inactive(e)
	}
}

func newProxyStatus(r proxycheck.Report) *proxyStatus {
	s := &proxyStatus{Address: r.Address, Answers: r.Answers, Problems: []problemShown{}}
	for _, p := range r.Problems {
		s.Problems = append(s.Problems, problemShown{p.Code, p.Error(), p.Hint})
	}
	return s
}

func (s *status) write(w io.Writer, changes []hostconfig.Change) error {
	p := &printer{w: w, color: colored(w)}
	if s.Proxy != nil {
		text := "answers at " + s.Proxy.Address
		if !s.Proxy.Answers {
			text = "does not answer at " + s.Proxy.Address
		}
		p.printf("%-10s  %s\n", "proxy", printable(text))
		for _, problem := range s.Proxy.Problems {
			p.paint(red, "            "+printable(problem.Text))
			if problem.Hint != "" {
				p.printf("            hint: %s\n", printable(problem.Hint))
			}
		}
	}
	pending := make(map[string]string)
	for _, c := range changes {
		pending[c.Path] = "to be changed"
		if c.Before == nil {
			pending[c.Path] = "missing"
		}
	}
	for _, e := range s.Engines {
		p.state(e)
		for _, name := range e.Files {
			wrong := pending[name]
			if s.refuses(name) {
				wrong = "cannot be changed, see below"
			}
			p.file(name, wrong)
			delete(pending, name)
		}
	}
	for _, c := range changes {
		if text := pending[c.Path]; text != "" {
			p.file(c.Path, "has our part, and should not any more")
		}
	}
	for _, text := range s.Refused {
		p.paint(red, "cannot: "+printable(text))
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

// refuses says whether a file is among those that cannot be as planned. What is said
// of each begins with its name.
func (s *status) refuses(name string) bool {
	return slices.ContainsFunc(s.Refused, func(text string) bool { return strings.HasPrefix(text, name+":") })
}

// file prints one file and what is wrong with it.
func (p *printer) file(name, wrong string) {
	if wrong == "" {
		p.printf("            %s\n", printable(name))
		return
	}
	p.paint(red, "            "+printable(name)+"  "+wrong)
}
