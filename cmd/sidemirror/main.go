// Sidemirror is a registry proxy next to a host's container engines.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// Exit codes. Done is 0.
const (
	exitFailed = 1 // sidemirror tried and failed; for status: there are problems
	exitUsage  = 2 // wrong usage or configuration; for plan: there are changes to make, and nothing else
)

// globals are the flags that every subcommand has.
type globals struct {
	configPath string // --config; "" leaves it to SIDEMIRROR_CONFIG, then to config.DefaultFile
}

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main without the process, for tests. It returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if wrong, ok := errors.AsType[usageError](err); ok {
		err = misused(cmd, wrong.err) // for the hint
	}
	if err.Error() != "" {
		fmt.Fprintln(stderr, strings.TrimSuffix(problem.Format("sidemirror: ", err), "\n"))
	}
	if cmd.Name() == planName {
		return planExitCode(err)
	}
	return exitCode(err)
}

// exitCode returns what the error's method ExitCode() int returns, or exitFailed.
func exitCode(err error) int {
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return exitFailed
}

func newRootCommand() *cobra.Command {
	g := new(globals)
	root := &cobra.Command{
		Use:   "sidemirror",
		Short: "A registry proxy next to a host's container engines",
		Long: `Sidemirror listens on the host's loopback address and mirrors the registries that Docker and
containerd pull from, with the right credentials. It writes the engines' own configuration so
that they ask it first. If it is stopped or broken, the engines fall back to the registries.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              cobra.ArbitraryArgs,
		RunE:              runRoot,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.PersistentFlags().StringVar(&g.configPath, "config", "", "configuration `file` (default $SIDEMIRROR_CONFIG, then /etc/sidemirror/config.toml)")
	root.Flags().Bool("version", false, "print the version, as the command version does")
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(showHelp)
	root.SetHelpCommand(newHelpCommand())
	root.AddCommand(
		newServeCommand(g),
		newPlanCommand(g),
		newApplyCommand(g),
		newRevertCommand(g),
		newWatchCommand(g),
		newStatusCommand(g),
		newDoctorCommand(g),
		newPullCommand(g),
		newCacheCommand(g),
		newLoginCommand(g),
		newLogoutCommand(g),
		newSetupBuildxCommand(g),
		newSetupGuestCommand(g),
		newSiteCommand(g),
		newConfigCommand(g),
		newVersionCommand(),
		newCompletionCommand(),
		newManCommand(),
		newDecryptCommand(),
	)
	completer{g}.complete(root)
	return root
}
