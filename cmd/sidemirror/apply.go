package main

import (
	"encoding/json"
	"io"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/hostconfig"
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
			result, failed := hostconfig.Apply(cmd.Context(), h, plan)
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
	for _, state := range plan.Engines {
		present = present || state.Present
		for _, note := range state.Notes {
			p.printf("note       %s: %s\n", state.Engine, printable(note))
		}
	}
	switch {
	case !present:
		p.printf("no engine found; name one with --engine docker or --engine containerd\n")
	case len(result.Written)+len(result.Given) == 0 && failed == nil:
		p.printf("nothing to do\n")
	case len(result.Written) > 0:
		p.printf("to undo    %s\n", f.undo())
	}
	return p.err
}

// result prints what was done, one line each.
func (p *printer) result(r hostconfig.Result) {
	for _, path := range r.Written {
		p.printf("wrote      %s\n", printable(path))
	}
	for _, path := range r.Given {
		p.printf("gave back  %s\n", printable(path))
	}
	for _, text := range r.Told {
		p.printf("told       %s\n", text)
	}
	for _, text := range r.Asked {
		p.printf("asked      %s\n", printable(text))
	}
	for _, text := range r.Warnings {
		p.printf("warning    %s\n", printable(text))
	}
}

func writeResultJSON(w io.Writer, r hostconfig.Result, engines []hostconfig.State) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(struct {
		Engines []hostconfig.State `json:"engines,omitempty"`
		Written []string           `json:"written"`
		Given   []string           `json:"given_back"`
		Told    []string           `json:"told"`

		Asked    []string `json:"asked"`
		Warnings []string `json:"warnings"`
	}{
		engines, append([]string{}, r.Written...), append([]string{}, r.Given...), append([]string{}, r.Told...),
		append([]string{}, r.Asked...), append([]string{}, r.Warnings...),
	})
}
