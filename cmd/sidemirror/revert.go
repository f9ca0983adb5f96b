package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// defaultMirror is what revert looks for in daemon.json if neither the journal nor the configuration
// tells what sidemirror wrote there.
const defaultMirror = "http://127.0.0.1:305"

func newRevertCommand(g *globals) *cobra.Command {
	f := &hostFlags{globals: g}
	var asJSON, filesOnly bool
	cmd := &cobra.Command{
		Use:   "revert",
		Short: "Restore every file of the engines as it was",
		Long: `Remove every entry of sidemirror from the engines' configuration. A file that no other
program has changed since becomes what it was, byte for byte. From others only sidemirror's
entry is removed, even if the engine itself could not read the file.

On a host whose units came with a package or with "make install", revert first stops and
disables the watcher, sidemirror-hosts.service, which would write the files again, and prints
the command that brings it back. --files-only leaves the watcher as it is.

containerd is not restarted. If config_path was removed, revert says so: until its next start
containerd goes on with what it has read.

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
			if want, err := f.desired(cmd.Context()); err == nil {
				mirror = want.Mirror
			}
			var stopped []string
			if h.Root == "/" && !filesOnly {
				if stopped, err = stopWatcher(cmd.Context()); err != nil {
					return err
				}
			}
			result, failed := hostconfig.Revert(cmd.Context(), h, mirror)
			failed = errors.Join(failed, f.handNothingOver(cmd.Context()))
			if asJSON {
				err = writeRevertedJSON(cmd.OutOrStdout(), result, stopped)
			} else {
				err = writeReverted(cmd.OutOrStdout(), result, stopped, failed != nil)
			}
			if failed != nil {
				return failed
			}
			return err
		},
	}
	f.addRoot(cmd)
	cmd.Flags().BoolVar(&filesOnly, "files-only", false, "leave the watcher as it is, even if it would write the files again")
	addJSON(cmd, &asJSON)
	return cmd
}

// handNothingOver removes what was handed over to the proxy of the running host.
func (f *hostFlags) handNothingOver(ctx context.Context) error {
	folder := config.Default().Engine.HandoverDir
	if c, err := f.load(ctx); err == nil {
		folder = c.Engine.HandoverDir
	}
	if f.root != "/" || folder == "" {
		return nil
	}
	return handover.Remove(folder)
}

// stopWatcher stops and disables the watcher, if systemd runs it, and returns the name of the unit if
// it did. The watcher would write sidemirror's entries again.
func stopWatcher(ctx context.Context) (stopped []string, err error) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil, nil //nolint:nilerr // systemd does not run here: sd_booted(3)
	}
	changed, err := sdnotify.Units{}.StopWatcher(ctx)
	if err != nil {
		return nil, &problem.Problem{
			Code: "watcher-not-stopped", Text: "nothing was restored: " + sdnotify.WatcherUnit + " would write the files again, and cannot be stopped", Err: err,
			Hint: "run as root: systemctl disable --now " + sdnotify.WatcherUnit,
		}
	}
	if changed {
		stopped = []string{sdnotify.WatcherUnit}
	}
	return stopped, nil
}

func writeReverted(w io.Writer, result hostconfig.Result, stopped []string, failed bool) error {
	p := newPrinter(w)
	for _, unit := range stopped {
		p.printf("stopped    %s, which would write the files again, and disabled it\n", unit)
	}
	p.result(result)
	if len(result.Restored) == 0 && !failed {
		p.printf("nothing to restore\n")
	}
	for _, unit := range stopped {
		p.printf("to undo    systemctl enable --now %s\n", unit)
	}
	return p.err
}

func writeRevertedJSON(w io.Writer, r hostconfig.Result, stopped []string) error {
	return writeJSON(w, struct {
		Stopped []string `json:"stopped"`
		resultJSON
	}{append([]string{}, stopped...), newResultJSON(r)})
}
