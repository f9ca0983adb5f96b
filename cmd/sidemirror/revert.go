package main

import (
	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/hostconfig"
)

// defaultMirror is what revert looks for in daemon.json if neither the journal nor the configuration
// tells what sidemirror wrote there.
const defaultMirror = "http://127.0.0.1:305"

func newRevertCommand(g *globals) *cobra.Command {
	f := &hostFlags{globals: g}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "revert",
		Short: "Restore every file of the engines as it was",
		Long: `Remove every entry of sidemirror from the engines' configuration. A file that no other
program has changed since becomes what it was, byte for byte. From others only sidemirror's
entry is removed, even if the engine itself could not read the file.

revert needs no configuration. If sidemirror's journal is lost, it finds the entries by their
marks, and the mirror in daemon.json by its address.`,
		Example: `  sudo sidemirror revert                    # this host
  sudo sidemirror revert --root /mnt/image  # the tree of an image`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := f.host()
			if err != nil {
				return err
			}
			mirror := defaultMirror
			// An invalid configuration does not keep revert from its work.
			if want, err := f.desired(); err == nil {
				mirror = want.Mirror
			}
			result, failed := hostconfig.Revert(cmd.Context(), h, mirror)
			if asJSON {
				err = writeResultJSON(cmd.OutOrStdout(), result, nil)
			} else {
				p := newPrinter(cmd.OutOrStdout())
				p.result(result)
				if len(result.Restored) == 0 && failed == nil {
					p.printf("nothing to restore\n")
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
	addJSON(cmd, &asJSON)
	return cmd
}
