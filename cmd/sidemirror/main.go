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
	exitUsage  = 2 // wrong usage or configuration; for plan: there are changes to make
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
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if err.Error() != "" {
		fmt.Fprintln(stderr, strings.TrimSuffix(problem.Format("sidemirror: ", err), "\n"))
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

// usageError is an error in the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }
func (usageError) ExitCode() int   { return exitUsage }

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
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(
		newServeCommand(g),
		newPlanCommand(g),
		newApplyCommand(g),
		newRevertCommand(g),
		newWatchCommand(g),
		newStatusCommand(g),
		newPullCommand(g),
		newCacheCommand(g),
		newLoginCommand(g),
		newLogoutCommand(g),
		newConfigCommand(g),
		newVersionCommand(),
		newCompletionCommand(),
		newManCommand(),
	)
	usageArgs(root)
	return root
}

// runRoot is for a command line without a subcommand, or with an unknown one.
func runRoot(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	text := fmt.Sprintf("unknown command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += fmt.Sprintf("; did you mean %q?", near[0])
	}
	return usageError{fmt.Errorf("%s (see \"sidemirror help\")", text)}
}

func flagError(cmd *cobra.Command, err error) error {
	return usageError{fmt.Errorf("%w (see %q)", err, cmd.CommandPath()+" --help")}
}

// usageArgs turns the errors of each command's check of its arguments into usage errors: cobra's own
// have no exit code.
func usageArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return flagError(cmd, err)
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		usageArgs(sub)
	}
}
