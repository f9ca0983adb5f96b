package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// errDifferences makes plan end with 2 and without a word more.
type errDifferences struct{}

func (errDifferences) Error() string { return "" }
func (errDifferences) ExitCode() int { return exitUsage }

func newPlanCommand(g *globals) *cobra.Command {
	f := &hostFlags{globals: g}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what apply would change on this host, and why",
		Long: `Show as a diff, with reasons, what apply would change in the engines' configuration,
and before it what is in force: each engine's version, store and files, by what it
reaches sidemirror, and what keeps it from that, with the mend. Nothing is changed.

The exit code is 0 where there is nothing to do, 2 where there is something (a file
to be changed, an engine to be told), and 1 where all that there is to do cannot
be done.`,
		Example: `  sidemirror plan                           what apply would do to this host
  sidemirror plan --restart-containerd      the same with config_path set for Kubernetes
  sidemirror plan --root /mnt/image --json  for an image that is being built, for a program`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, plan, err := f.plan(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				err = writePlanJSON(cmd.OutOrStdout(), plan)
			} else {
				err = writePlan(cmd.OutOrStdout(), plan)
			}
			switch {
			case err != nil:
				return err
			case len(plan.Changes)+len(plan.Signals()) > 0:
				return errDifferences{}
			case len(plan.Refused) > 0 && !asJSON:
				return fmt.Errorf("%d of the files cannot be changed", len(plan.Refused))
			}
			return refused(plan)
		},
	}
	f.addRoot(cmd)
	f.addEngines(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, for programs")
	return cmd
}

// colored reports whether w is a terminal whose user wants colours (no-color.org).
func colored(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

func writePlan(w io.Writer, plan hostconfig.Plan) error {
	p := &printer{w: w, color: colored(w)}
	for _, state := range plan.Engines {
		p.state(state)
	}
	for _, c := range plan.Changes {
		p.printf("\n")
		p.paint(bold, "# "+printable(c.Why))
		p.diff(c.Path, c.Before, c.After)
	}
	for _, err := range plan.Refused {
		p.printf("\n")
		p.problem("cannot", err)
	}
	switch signals := plan.Signals(); {
	case len(plan.Changes)+len(signals)+len(plan.Refused) == 0:
		p.printf("nothing to do\n")
	case len(signals) > 0:
		p.printf("\n")
		for _, signal := range signals {
			p.printf("then: %s\n", signal)
		}
	}
	return p.err
}

// refused returns an error for what a plan refuses.
func refused(plan hostconfig.Plan) error {
	var errs []error
	for _, p := range plan.Refused {
		errs = append(errs, p)
	}
	return errors.Join(errs...)
}

// problem prints what is wrong, and the hint on a line of its own.
func (p *printer) problem(label string, what *problem.Problem) {
	p.paint(red, label+": "+printable(what.Error()))
	p.hint(what)
}

// note prints what is worth knowing, and the hint on a line of its own.
func (p *printer) note(label string, what *problem.Problem) {
	p.printf("%s: %s\n", label, printable(what.Error()))
	p.hint(what)
}

func (p *printer) hint(what *problem.Problem) {
	if what.Hint != "" {
		p.printf("hint: %s\n", printable(what.Hint))
	}
}

// state prints one engine: "docker      28.5.2, containerd store: hosts.toml", and what
// is to be said about it.
func (p *printer) state(s engine.State) {
	text := s.Version
	switch {
	case !s.Present:
		text = "not found"
	case text == "" && s.Home == "":
		text = "version unknown"
	}
	list := []string{text}
	if s.Home != "" {
		list = []string{s.Home, s.Version}
	}
	if s.Running {
		list = append(list, "running")
	}
	switch s.Store {
	case "":
	case "graph driver":
		list = append(list, "graph-driver store")
	default:
		list = append(list, s.Store+" store")
	}
	text = strings.Join(slices.DeleteFunc(list, func(s string) bool { return s == "" }), ", ")
	if s.Mirror != "" {
		text += ": mirror " + string(s.Mirror)
	}
	p.printf("%-10s  %s\n", s.Engine, printable(text))
	for _, what := range s.Problems {
		p.problem("problem", what)
	}
	for _, what := range s.Notes {
		p.note("note", what)
	}
}

func writePlanJSON(w io.Writer, plan hostconfig.Plan) error {
	type change struct {
		Engine string  `json:"engine"`
		Path   string  `json:"path"`
		Why    string  `json:"why"`
		Before *string `json:"before"` // null where there is no file
		After  *string `json:"after"`
	}
	text := func(data []byte) *string {
		if data == nil {
			return nil
		}
		s := string(data)
		return &s
	}
	out := struct {
		Engines []engine.State     `json:"engines"`
		Changes []change           `json:"changes"`
		Signals []engine.Signal    `json:"signals"`
		Refused []*problem.Problem `json:"refused"`
	}{
		Engines: plan.Engines, Changes: []change{}, Signals: append([]engine.Signal{}, plan.Signals()...),
		Refused: append([]*problem.Problem{}, plan.Refused...),
	}
	for _, c := range plan.Changes {
		out.Changes = append(out.Changes, change{c.Engine, c.Path, c.Why, text(c.Before), text(c.After)})
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}
