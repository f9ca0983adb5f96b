package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/keeper"
	"github.com/sidemirror/sidemirror/proxy/credential/sealed"
)

func newWatchCommand(g *globals) *cobra.Command {
	f := &hostFlags{globals: g}
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Maintain the engines' configuration in the foreground",
		Long: `Maintain the engines' configuration as "sidemirror plan" shows it, in the
foreground, as the unit sidemirror-hosts.service does. It starts with what
"sidemirror apply" does, and then waits for changes:

  - If another program changes a file, watch restores sidemirror's entry once the
    file has been left alone for 250 ms. If that program keeps undoing it, each
    wait is twice as long as the one before. After the tenth time watch leaves the
    file to that program, and reports so, until the configuration changes or watch
    is restarted.
  - It configures an engine that is installed later, and restores the files of one
    that is removed.
  - It configures a registry that is added to sidemirror's configuration, or that you
    log in to, which it knows by the names of files, without the logins. If the
    configuration is faulty, the last good one stays in force; if there was none
    yet, watch waits for one. SIGHUP makes it read the configuration too.

Every ten minutes it examines the host even if no change was reported. The unit's
status line shows what it maintains, and problems. When it stops, the files stay as
they are. To restore them: sidemirror revert.`,
		Example: `  sudo sidemirror watch                      # until Ctrl-C stops it
  sudo sidemirror watch --engine docker      # leaves containerd alone`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := f.host()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
			defer stop()
			context.AfterFunc(ctx, stop)
			return keeper.Run(ctx, keeper.Settings{
				Source: f.source(), Options: f.options(), Host: h, LoggedIn: f.loggedIn, LoginFolder: sealed.Folder,
			})
		},
	}
	f.addRoot(cmd)
	f.addEngines(cmd)
	return cmd
}
