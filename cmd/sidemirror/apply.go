package main

import (
	"encoding/json"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
)

func newApplyCommand(g *globals) *cobra.Command {
	f := &hostFlags{globals: g}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Write the engines' configuration so that they ask sidemirror first",
		Long: `Write the configuration of the container engines on this host so that they ask
sidemirror first and the registry itself where that does not answer. What was
there is kept, and "sidemirror revert" gives it back. See first what it would do
with "sidemirror plan".

Docker is reloaded where its daemon.json changed, and asked whether it took it.
containerd needs neither, but for config_path: see --restart-containerd. An engine
that runs and reads hosts.toml files is asked to pull a probe image from a registry
that does not exist but in such a file, to see that it comes to us. Files that
cannot be changed are named with the reason, and keep no others from it. A run
that was killed is finished, or undone, by the next one. The exit code is 0 where
everything is as planned.`,
		Example: `  sudo sidemirror apply
  sudo sidemirror apply --restart-containerd  so that Kubernetes pulls through sidemirror too
  sudo sidemirror apply --engine containerd   leaves Docker as it is`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, plan, err := f.plan(cmd.Context())
			if err != nil {
				return err
			}
			h.Probe = true
			result, failed := hostconfig.Apply(cmd.Context(), h, plan)
			// What is left to report is what still holds.
			if _, after, err := f.plan(cmd.Context()); err == nil {
				plan.Engines = after.Engines
			}
			if asJSON {
				err = writeResultJSON(cmd.OutOrStdout(), result, plan.Engines)
			} else {
				err = f.writeApplied(cmd.OutOrStdout(), result, plan, failed)
			}
			if failed != nil {
				return failed
			}
			return err
		},
	}
	f.addRoot(cmd)
	f.addEngines(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, for programs")
	return cmd
}

func (f *hostFlags) writeApplied(w io.Writer, result hostconfig.Result, plan hostconfig.Plan, failed error) error {
	p := &printer{w: w}
	p.result(result)
	present := false
	reported := failed != nil // the error names what was refused
	for _, state := range plan.Engines {
		present = present || state.Present
		for _, what := range state.Problems {
			if !reported || !isRefused(plan, what) {
				p.note(state.Title(), what)
			}
		}
		for _, what := range state.Notes {
			p.note("note: "+state.Title(), what)
		}
	}
	switch {
	case !present:
		p.printf("no engine found; name one with --engine docker or --engine containerd\n")
	case len(result.Written)+len(result.Restored) == 0 && failed == nil:
		p.printf("nothing to do\n")
	case len(result.Written) > 0:
		p.printf("to undo    %s\n", f.undo())
	}
	return p.err
}

// isRefused reports whether a problem is among those for which a plan refused a file.
func isRefused(plan hostconfig.Plan, what *problem.Problem) bool {
	return slices.ContainsFunc(plan.Refused, func(p *problem.Problem) bool { return p.Code == what.Code && p.Path == what.Path })
}

// result prints what was done, one line each.
func (p *printer) result(r hostconfig.Result) {
	for _, path := range r.Written {
		p.printf("wrote      %s\n", printable(path))
	}
	for _, path := range r.Restored {
		p.printf("restored   %s\n", printable(path))
	}
	for _, s := range r.Signals {
		p.printf("signalled  %s\n", s)
	}
	for _, text := range r.Probed {
		p.printf("probed     %s\n", printable(text))
	}
	for _, warning := range r.Warnings {
		p.note("warning", warning)
	}
}

func writeResultJSON(w io.Writer, r hostconfig.Result, engines []engine.State) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(struct {
		Engines  []engine.State     `json:"engines,omitempty"`
		Written  []string           `json:"written"`
		Restored []string           `json:"restored"`
		Signals  []engine.Signal    `json:"signals"`
		Probed   []string           `json:"probed"`
		Warnings []*problem.Problem `json:"warnings"`
	}{
		engines, append([]string{}, r.Written...), append([]string{}, r.Restored...), append([]engine.Signal{}, r.Signals...),
		append([]string{}, r.Probed...), append([]*problem.Problem{}, r.Warnings...),
	})
}
