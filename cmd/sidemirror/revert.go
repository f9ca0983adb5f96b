package main

import (
	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/hostconfig"
)

// defaultMirror is looked for in daemon.json where neither a journal nor a
// configuration can say what was written there.
const defaultMirror = "http://127.0.0.1:305"

func newRevertCommand(g *globals) *cobra.Command {
	f := &hostFlags{globals: g}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "revert",
		Short: "Give every file of the engines back as it was",
		Long: `Take everything of sidemirror's out of the engines' configuration. A file that
nobody else has written to since is again what it was, to the byte; from others
only sidemirror's part is taken. This works without a configuration, and without
sidemirror's own journal as well as can be.`,
		Example: `  sudo sidemirror revert
  sidemirror revert --root /mnt/image  an image's files, without telling anybody`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := f.host()
			if err != nil {
				return err
			}
			mirror := defaultMirror
			// A configuration that cannot be read is no reason to leave files as they are.
			if want, err := f.desired(); err == nil {
				mirror = want.Mirror
			}
			result, failed := hostconfig.Revert(cmd.Context(), h, mirror)
			if asJSON {
				err = writeResultJSON(cmd.OutOrStdout(), result, nil)
			} else {
				p := &printer{w: cmd.OutOrStdout()}
				p.result(result)
				if len(result.Restored) == 0 && failed == nil {
					p.printf("nothing to give back\n")
				}
				err = p.err
			}
			if failed != nil {
				return failed
			}
			return err
		},
	}
	f.addRoot(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, for programs")
	return cmd
}
