package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/state"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// exitSilently is an error that is only an exit code: the output has said everything.
type exitSilently int

func (exitSilently) Error() string   { return "" }
func (e exitSilently) ExitCode() int { return int(e) }

// planName is the name of the command whose exit code 2 means differences.
const planName = "plan"

// planExitCode returns the exit code of plan for err. A script has to tell differences from a command
// line or a configuration that is wrong.
func planExitCode(err error) int {
	if code, ok := errors.AsType[exitSilently](err); ok {
		return code.ExitCode()
	}
	return exitFailed
}

func newPlanCommand(g *globals) *cobra.Command {
	f := &hostFlags{globals: g}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   planName,
		Short: "Show what apply would change on this host, and why",
		Long: `Show as a diff, with reasons, what apply would change in the engines' configuration. plan
changes nothing. It begins with the engines: their version and store, whether their pulls go
through sidemirror, and what prevents it, with a hint.

The exit code is 0 if there is nothing to do, 2 if there are changes (files to write, engines
to signal), and 1 if the plan cannot be made or nothing of what is left to do can be done.`,
		Example: `  sudo sidemirror plan                       # what apply would do on this host
  sudo sidemirror plan --restart-containerd  # for Kubernetes too
  sudo sidemirror plan --root /mnt/image     # for the tree of an image`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, plan, err := f.plan(cmd.Context())
			if err != nil {
				return err
			}
			outbound, err := f.outbound(cmd.Context(), plan)
			switch {
			case err != nil:
			case asJSON:
				err = writePlanJSON(cmd.OutOrStdout(), plan, outbound)
			default:
				err = writePlan(cmd.OutOrStdout(), plan, outbound)
			}
			switch {
			case err != nil:
				return err
			case len(plan.Changes)+len(plan.Signals()) > 0:
				return exitSilently(exitUsage)
			case len(plan.Refused) > 0:
				return exitSilently(exitFailed)
			}
			return nil
		},
	}
	f.addRoot(cmd)
	f.addEngines(cmd)
	addJSON(cmd, &asJSON)
	return cmd
}

// found is one problem of a host.
type found struct {
	engine string // its title; "" if the problem is not about an engine
	*problem.Problem
}

// problemsOf returns the problems of the engines, and what the plan refuses apart from them.
func problemsOf(engines []engine.State, refused []*problem.Problem) (list []found) {
	at := make(map[*problem.Problem]int)
	add := func(engine string, what *problem.Problem) {
		i, known := at[what]
		switch {
		case !known:
			at[what] = len(list)
			list = append(list, found{engine, what})
		case engine != "" && list[i].engine != engine:
			list[i].engine = "" // it is about the host
		}
	}
	for _, e := range engines {
		for _, what := range e.Problems {
			add(e.Title(), what)
		}
	}
	for _, what := range refused {
		add("", what)
	}
	return list
}

func writePlan(w io.Writer, plan hostconfig.Plan, outbound *state.Outbound) error {
	p := newPrinter(w)
	p.outbound(outbound)
	for _, state := range plan.Engines {
		p.state(state)
	}
	for _, what := range problemsOf(plan.Engines, plan.Refused) {
		p.report(red, "problem", what.engine, what.Problem)
	}
	p.adopted("adopted     ", plan.Engines)
	p.notes(plan.Engines, plan.Notes...)
	for _, c := range plan.Changes {
		p.printf("\n")
		p.paint(bold, "# "+printable(c.Why))
		p.diff(c.Path, c.Before, c.After)
	}
	signals := plan.Signals()
	if len(signals) > 0 {
		p.printf("\n")
	}
	for _, signal := range signals {
		p.printf("then: %s\n", signal)
	}
	if len(plan.Changes)+len(signals)+len(plan.Refused) == 0 {
		p.printf("nothing to do\n")
	}
	return p.err
}

// changeJSON is one file in the output of "plan --json".
type changeJSON struct {
	Engine string  `json:"engine"`
	Path   string  `json:"path"`
	Why    string  `json:"why"`
	Before *string `json:"before"` // null if there is no file
	After  *string `json:"after"`
}

func writePlanJSON(w io.Writer, plan hostconfig.Plan, outbound *state.Outbound) error {
	text := func(data []byte) *string {
		if data == nil {
			return nil
		}
		s := string(data)
		return &s
	}
	changes := []changeJSON{}
	for _, c := range plan.Changes {
		changes = append(changes, changeJSON{c.Engine, c.Path, c.Why, text(c.Before), text(c.After)})
	}
	return writeJSON(w, struct {
		Engines  []engine.State     `json:"engines"`
		Changes  []changeJSON       `json:"changes"`
		Signals  []live.Signal      `json:"signals"`
		Refused  []*problem.Problem `json:"refused"`
		Notes    []*problem.Problem `json:"notes,omitempty"`
		Outbound *state.Outbound    `json:"outbound,omitempty"`
	}{plan.Engines, changes, append([]live.Signal{}, plan.Signals()...), append([]*problem.Problem{}, plan.Refused...), plan.Notes, outbound})
}
