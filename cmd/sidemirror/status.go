package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/proxycheck"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/daemon/state"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// status is what "sidemirror status --json" prints. docs/json.md describes it.
type status struct {
	OK      bool               `json:"ok"`              // there is no problem
	Proxy   *proxyStatus       `json:"proxy,omitempty"` // not under --root
	Units   []proxycheck.Unit  `json:"units,omitempty"` // not under --root, and not without systemd
	Engines []engine.State     `json:"engines"`
	Pending []string           `json:"pending"` // files that are not as planned and can be changed
	Signals []live.Signal      `json:"signals"` // what running engines still need
	Refused []*problem.Problem `json:"refused"` // why files cannot be as planned
	Notes   []*problem.Problem `json:"notes,omitempty"`

	RefusedCallers []refusedCaller `json:"refused_callers,omitempty"` // root alone sees them
	Logins         []state.Login   `json:"logins,omitempty"`          // and those
	Outbound       *state.Outbound `json:"outbound,omitempty"`        // and the forward proxy
	Guests         []string        `json:"guests,omitempty"`          // and those

	mirror string // sidemirror's URL
	unused bool   // no configuration is in force, so that engines use the registries directly
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
		Short: "Show what is in force on this host, and all problems",
		Long: `Show whether sidemirror answers, and the container engines of this host: their version and
store, whether their pulls go through sidemirror, and the files that make them. Each problem
comes with a hint. Root also sees which callers are not trusted, and so are served without
sidemirror's logins, and what would make them trusted.

The exit code is 0 if there is no problem, and 1 if there is one.`,
		Example: `  sudo sidemirror status
  sudo sidemirror status --short
  sudo sidemirror status --json | jq '.engines[].mirror'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON && short {
				return usageError{errors.New("--json and --short exclude each other")}
			}
			h, err := f.host()
			if err != nil {
				return err
			}
			now, err := f.inForce(cmd.Context(), config.DefaultLastGood(os.Environ()))
			if err != nil {
				return err
			}
			plan, err := f.planFor(cmd.Context(), h, now.Config)
			if err != nil {
				return err
			}
			if !now.used {
				plan = onlyWhatIsThere(plan)
			}
			s := newStatus(plan)
			if h.Root == "/" {
				own := readState()
				s.addProxy(proxycheck.Check(cmd.Context(), plan.Mirror, sdnotify.Units{}, now.problems...).Detailed(own.Problems))
				s.unused = !now.used && !s.Proxy.Answers // only root can read the last good one
				s.addState(own, now.Config)
			}
			switch {
			case asJSON:
				err = writeJSON(cmd.OutOrStdout(), s)
			case short:
				err = s.writeShort(cmd.OutOrStdout(), undoing(h.Root))
			default:
				err = s.write(cmd.OutOrStdout())
			}
			if err == nil && !s.OK {
				return exitSilently(exitFailed)
			}
			return err
		},
	}
	f.addRoot(cmd)
	f.addEngines(cmd)
	addJSON(cmd, &asJSON)
	cmd.Flags().BoolVar(&short, "short", false, "print at most three lines: what is configured, the worst problem, how to undo it")
	return cmd
}

func newStatus(plan hostconfig.Plan) *status {
	s := &status{
		Engines: plan.Engines, Pending: []string{}, Signals: append([]live.Signal{}, plan.Signals()...),
		Refused: append([]*problem.Problem{}, plan.Refused...), mirror: plan.Mirror,
	}
	for _, c := range plan.Changes {
		s.Pending = append(s.Pending, c.Path)
	}
	for _, what := range plan.Notes {
		if what.Path != plan.Mirror { // the status looks at the proxy itself
			s.Notes = append(s.Notes, what)
		}
	}
	s.OK = len(s.problems()) == 0
	return s
}

// addProxy adds what was found out about the proxy.
func (s *status) addProxy(r proxycheck.Report) {
	s.Proxy = &proxyStatus{Address: r.Address, Answers: r.Answers, Problems: append([]*problem.Problem{}, r.Problems...)}
	s.Units = r.Units
	s.OK = len(s.problems()) == 0
}

// problems returns all problems, the worst first.
func (s *status) problems() (list []found) {
	if s.Proxy != nil {
		for _, what := range s.Proxy.Problems {
			list = append(list, found{"", what})
		}
	}
	proxy := slices.Clone(list)
	for _, what := range problemsOf(s.Engines, s.Refused) {
		// What is wrong with the port is known from the proxy already.
		if !slices.ContainsFunc(proxy, func(f found) bool { return f.Code != "" && f.Code == what.Code }) {
			list = append(list, what)
		}
	}
	const hint = "sidemirror apply (sidemirror plan shows what it does)"
	if n := len(s.Pending); n > 0 {
		text := several(n, "file") + " must be changed"
		list = append(list, found{"", &problem.Problem{Code: "files-pending", Text: text, Hint: hint}})
		return list
	}
	for _, signal := range s.Signals {
		text := fmt.Sprintf("needs a %s to take its configuration", signal.Verb)
		list = append(list, found{signal.Engine, &problem.Problem{Code: "signal-pending", Text: text, Hint: hint}})
	}
	return list
}

func (s *status) write(w io.Writer) error {
	p := newPrinter(w)
	if s.Proxy != nil {
		text := "answers at " + s.Proxy.Address
		if !s.Proxy.Answers {
			text = "does not answer at " + s.Proxy.Address
		}
		p.printf("%-10s  %s\n", "proxy", printable(text))
	}
	if len(s.Units) > 0 {
		p.printf("%-10s  %s\n", "units", printable(unitsText(s.Units)))
	}
	if len(s.Logins) > 0 {
		p.printf("%-10s  %s\n", "logins", printable(loginsText(s.Logins)))
	}
	p.outbound(s.Outbound)
	if len(s.Guests) > 0 {
		p.printf("%-10s  served at %s\n", "guests", printable(strings.Join(s.Guests, ", ")))
	}
	for _, e := range s.Engines {
		p.state(e)
		for _, file := range e.Files {
			p.file(file)
		}
	}
	problems := s.problems()
	if len(problems) > 0 {
		p.printf("\n")
	}
	for _, what := range problems {
		p.report(red, "problem", what.engine, what.Problem)
	}
	p.adopted("adopted     ", s.Engines)
	p.notes(s.Engines, s.Notes...)
	p.refusedCallers(s.RefusedCallers, time.Now())
	if len(problems) == 0 {
		p.paint(green, "no problems found")
	}
	return p.err
}

// unitsText lists units by their state: "active: sidemirror.socket; inactive: sidemirror-hosts".
func unitsText(units []proxycheck.Unit) string {
	var states []string
	names := make(map[string][]string)
	for _, u := range units {
		if names[u.Active] == nil {
			states = append(states, u.Active)
		}
		names[u.Active] = append(names[u.Active], strings.TrimSuffix(u.Name, ".service"))
	}
	for i, state := range states {
		states[i] = state + ": " + strings.Join(names[state], ", ")
	}
	return strings.Join(states, "; ")
}
