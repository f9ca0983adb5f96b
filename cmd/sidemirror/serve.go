package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/daemon"
	"github.com/sidemirror/sidemirror/daemon/config"
)

func newServeCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the proxy in the foreground",
		Long: `Run the proxy in the foreground, as the unit sidemirror.service does.

SIGHUP, and a change of the configuration file, make it read the configuration
again; one that is faulty is told in the log and leaves the old one in force.
SIGTERM and SIGINT end it when the answers under way are finished, at the latest after
shutdown_timeout; until then new requests are answered too. A second signal ends
it at once.

Sockets that systemd hands over (sd_listen_fds(3)) are served instead of listen.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := noCoreDumps(); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
			defer stop()
			// From the first signal on the next one does what it does without us.
			context.AfterFunc(ctx, stop)
			info, _ := debug.ReadBuildInfo()
			return daemon.Run(ctx, config.Source{Path: g.configPath, Environ: os.Environ()}, buildVersion(info))
		},
	}
}

// noCoreDumps keeps credentials out of core files, also those that the kernel pipes to
// a handler, for which the limit does not count.
func noCoreDumps() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("turning core dumps off (PR_SET_DUMPABLE): %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("turning core dumps off (RLIMIT_CORE): %w", err)
	}
	return nil
}
