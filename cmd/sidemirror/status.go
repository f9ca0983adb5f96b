package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/activity"
	"github.com/sidemirror/sidemirror/daemon/admin"
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
	Site           *state.Site     `json:"site,omitempty"`            // and that

	Cache    *admin.Cache       `json:"cache,omitempty"`    // members of the daemon's group see it
	Activity *activity.Activity `json:"activity,omitempty"` // and that

	warnings []*problem.Problem // those of Notes that are shown as such

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
	var asJSON, short, watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what is in force on this host, and all problems",
		Long: `Show whether sidemirror answers, and the container engines of this host: their version and
store, whether their pulls go through sidemirror, and the files that make them. Each problem
comes with a hint. Root, and members of the group sidemirror, also see the cache, when each engine
pulled last, the registries' rate limits, and whether they can be reached. Root also sees which callers are not trusted, and so are served without
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
			if watch && (asJSON || short) {
				return usageError{errors.New("--watch excludes --json and --short")}
			}
			if watch {
				ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
				defer stop()
				return redraw(ctx, cmd.OutOrStdout(), watchEvery, func() (string, error) {
					s, _, err := f.status(ctx)
					if err != nil {
						return "", err
					}
					return s.screen(cmd.OutOrStdout())
				})
			}
			s, root, err := f.status(cmd.Context())
			if err != nil {
				return err
			}
			switch {
			case asJSON:
				err = writeJSON(cmd.OutOrStdout(), s)
			case short:
				err = s.writeShort(cmd.OutOrStdout(), undoing(root))
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
	cmd.Flags().BoolVar(&watch, "watch", false, "show the status again every 2 seconds, until it is interrupted")
	return cmd
}

// status finds out what is in force on the host, whose root it returns too.
func (f *hostFlags) status(ctx context.Context) (s *status, root string, err error) {
	h, err := f.host()
	if err != nil {
		return nil, "", err
	}
	now, err := f.inForce(ctx, config.DefaultLastGood(os.Environ()))
	if err != nil {
		return nil, "", err
	}
	plan, err := f.planFor(ctx, h, now.Config)
	if err != nil {
		return nil, "", err
	}
	if !now.used {
		plan = onlyWhatIsThere(plan)
	}
	s = newStatus(plan)
	if h.Root == "/" {
		own := readDaemon(ctx, adminClient())
		s.addProxy(proxycheck.Check(ctx, plan.Mirror, sdnotify.Units{}, now.problems...).Detailed(own.Problems))
		s.unused = !now.used && !s.Proxy.Answers // only root can read the last good one
		s.addState(own.State, now.Config)
		s.Cache, s.Activity, s.warnings = own.cache, own.activity, own.warnings
	}
	return s, h.Root, nil
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

func (s *status) write(w io.Writer) error { return s.print(newPrinter(w)) }

// screen returns what write would write to out.
func (s *status) screen(out io.Writer) (string, error) {
	var b strings.Builder
	p := newPrinter(out)
	p.w = &b
	err := s.print(p)
	return b.String(), err
}

func (s *status) print(p *printer) error {
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
	if s.Site != nil {
		p.printf("%-10s  served at %s as %s\n", "site", printable(strings.Join(s.Site.Addresses, ", ")), printable(strings.Join(s.Site.Names, ", ")))
	}
	p.activity(s.Cache, s.Activity, time.Now())
	for _, e := range s.Engines {
		p.state(e)
		for _, file := range e.Files {
			p.file(file)
		}
	}
	problems := s.problems()
	if len(problems)+len(s.warnings) > 0 {
		p.printf("\n")
	}
	for _, what := range problems {
		p.report(red, "problem", what.engine, what.Problem)
	}
	for _, what := range s.warnings {
		p.report(yellow, "warning", "", what)
	}
	p.adopted("adopted     ", s.Engines)
	p.notes(s.Engines, slices.DeleteFunc(slices.Clone(s.Notes), func(n *problem.Problem) bool { return slices.Contains(s.warnings, n) })...)
	p.refusedCallers(s.RefusedCallers, time.Now())
	switch {
	case len(problems) == 0 && len(s.warnings) > 0:
		p.paint(green, "no problems of this host found")
	case len(problems) == 0:
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
