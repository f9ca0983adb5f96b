package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/keeper"
)

func newWatchCommand(g *globals) *cobra.Command {
	f := &hostFlags{globals: g}
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Keep the engines' configuration as planned, in the foreground",
		Long: `Keep the engines' configuration as "sidemirror plan" has it, in the foreground, as
the unit sidemirror-hosts.service does. It begins with what "sidemirror apply"
does, and then waits for the kernel to tell of changes:

  - A file that somebody changed is given our part again when it has been left
    alone for 250 ms. Where another program keeps undoing that, each wait is twice
    as long as the one before; after the tenth time the file is left to that
    program, and said so, until the configuration changes or watch is restarted.
  - An engine that is installed later is configured, and files of one that is
    taken off are given back.
  - A registry that is added to sidemirror's configuration is there at once.
    A configuration that is faulty is told in the log and leaves the old one in force.
    SIGHUP reads it again too.

Every ten minutes it looks even though nothing was told. What it waits for and
what is amiss is on the unit's status line. When it is stopped nothing changes:
the files stay as they are. To give them back: sidemirror revert.`,
		Example: `  sudo sidemirror watch                      until it is stopped by Ctrl-C
  sudo sidemirror watch --engine docker      leaves containerd as it is`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := f.host()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
			defer stop()
			context.AfterFunc(ctx, stop)
			return keeper.Run(ctx, keeper.Settings{Source: f.source(), Options: f.options(), Host: h})
		},
	}
	f.addRoot(cmd)
	f.addEngines(cmd)
	return cmd
}
