package main

import (
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/internal/problem"
)

func newApplyCommand(g *globals) *cobra.Command {
	f := &hostFlags{globals: g}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Write the engines' configuration so that they ask sidemirror first",
		Long: `Write the configuration of the container engines on this host so that they ask sidemirror
first, and the registry itself if sidemirror does not answer. "sidemirror plan" shows the
changes without making them, and "sidemirror revert" restores the files.

sidemirror reloads Docker if daemon.json changed, and asks it whether it took the change.
containerd needs no signal except for config_path: see --restart-containerd. If an engine that
runs reads hosts.toml files, sidemirror lets it pull from a registry that exists only in such
a file, to confirm that the pull arrives. It does the same with skopeo if that is installed, for
podman's files. podman, buildah and skopeo need no signal, CRI-O is reloaded, and buildkitd reads
its file when it is restarted: see --restart-buildkit.

If a credential helper is configured, or the host's name server is link-local, apply lets
sidemirror's own service reach the addresses that these need, by a drop-in of its unit.

A file that cannot be changed is reported with the reason, and does not keep sidemirror from
changing the others. If a run is killed, the next one completes or undoes it. The exit code
is 0 if every file is as planned.`,
		Example: `  sudo sidemirror apply
  sudo sidemirror apply --restart-containerd  # for Kubernetes too
  sudo sidemirror apply --engine containerd   # leaves Docker as it is`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, plan, err := f.plan(cmd.Context())
			if err != nil {
				return err
			}
			h.Probe = true
			// Before the engines ask sidemirror for these registries.
			unknown := f.handOver(cmd.Context(), plan)
			result, failed := hostconfig.Apply(cmd.Context(), h, plan)
			if unknown != nil {
				result.Warnings = append(result.Warnings, problem.Coded(unknown, "handover-failed"))
			}
			// The report is about what still holds.
			if _, after, err := f.plan(cmd.Context()); err == nil {
				plan.Engines, plan.Notes = after.Engines, after.Notes
			}
			if asJSON {
				err = writeAppliedJSON(cmd.OutOrStdout(), result, plan.Engines)
			} else {
				err = f.writeApplied(cmd.OutOrStdout(), result, plan, failed != nil)
			}
			if failed != nil {
				return failed
			}
			return err
		},
	}
	f.addRoot(cmd)
	f.addEngines(cmd)
	addJSON(cmd, &asJSON)
	return cmd
}

// writeApplied prints the result and the problems that are left. If apply failed, its error names
// those that the plan refused.
func (f *hostFlags) writeApplied(w io.Writer, result hostconfig.Result, plan hostconfig.Plan, failed bool) error {
	p := newPrinter(w)
	p.result(result)
	for _, what := range problemsOf(plan.Engines, nil) {
		if !failed || !refuses(plan, what.Problem) {
			p.report(red, "problem", what.engine, what.Problem)
		}
	}
	p.adopted("adopted    ", plan.Engines)
	p.notes(plan.Engines, plan.Notes...)
	present := slices.ContainsFunc(plan.Engines, func(s engine.State) bool { return s.Present })
	switch {
	case !present:
		p.printf("no engine found; name one with --engine docker or --engine containerd\n")
	case len(result.Written)+len(result.Restored) == 0 && !failed:
		p.printf("nothing to do\n")
	case len(result.Written) > 0:
		p.printf("to undo    %s\n", f.undo())
	}
	return p.err
}

// refuses reports whether a problem is among those for which a plan refused a file.
func refuses(plan hostconfig.Plan, what *problem.Problem) bool {
	return slices.ContainsFunc(plan.Refused, func(p *problem.Problem) bool { return p.Code == what.Code && p.Path == what.Path })
}

// verbs are what was done to an engine, for a person.
var verbs = map[live.Verb]string{live.Reload: "reloaded", live.Restart: "restarted"}

// result prints what was done, one line each.
func (p *printer) result(r hostconfig.Result) {
	for _, path := range r.Written {
		p.printf("wrote      %s\n", printable(path))
	}
	for _, path := range r.Restored {
		p.printf("restored   %s\n", printable(path))
	}
	for _, s := range r.Signals {
		p.printf("%-9s  %s\n", verbs[s.Verb], s.Engine)
	}
	for _, text := range r.Probed {
		p.printf("probed     %s\n", printable(text))
	}
	for _, warning := range r.Warnings {
		p.report("", "warning", "", warning)
	}
}

// resultJSON is a result in the output of "apply --json" and "revert --json".
type resultJSON struct {
	Written  []string           `json:"written"`
	Restored []string           `json:"restored"`
	Signals  []live.Signal      `json:"signals"`
	Probed   []string           `json:"probed"`
	Warnings []*problem.Problem `json:"warnings"`
}

func newResultJSON(r hostconfig.Result) resultJSON {
	return resultJSON{
		append([]string{}, r.Written...), append([]string{}, r.Restored...), append([]live.Signal{}, r.Signals...),
		append([]string{}, r.Probed...), append([]*problem.Problem{}, r.Warnings...),
	}
}

func writeAppliedJSON(w io.Writer, r hostconfig.Result, engines []engine.State) error {
	return writeJSON(w, struct {
		Engines []engine.State `json:"engines"`
		resultJSON
	}{append([]engine.State{}, engines...), newResultJSON(r)})
}
