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

It reads the configuration again at SIGHUP, and when the file or a certificate that
the file names changes. If the configuration is faulty, the last good one stays in
force, also at the next start; the log and the status line report it. If systemd
starts the daemon and there is no good configuration, it refuses every request, so
that engines use the registries directly, until the file is repaired.

SIGTERM and SIGINT end it when the requests under way are finished, at the latest
after shutdown_timeout; until then it serves new requests too. A second signal ends
it at once.

If systemd hands over sockets (sd_listen_fds(3)), they are served instead of the
addresses in listen. The exit code is 1 if it cannot listen, and 2 if it has no
configuration that can be used.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := noCoreDumps(); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
			defer stop()
			// After the first signal, the next one has its default effect.
			context.AfterFunc(ctx, stop)
			info, _ := debug.ReadBuildInfo()
			return daemon.Run(ctx, config.Source{Path: g.configPath, Environ: os.Environ()}, buildVersion(info))
		},
	}
}

// noCoreDumps keeps credentials out of core files, including those that the kernel pipes to a
// handler, to which the limit does not apply.
func noCoreDumps() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("turning core dumps off (PR_SET_DUMPABLE): %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("turning core dumps off (RLIMIT_CORE): %w", err)
	}
	return nil
}
