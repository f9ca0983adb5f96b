package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/spelling"
)

// usageError is an error in the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }
func (usageError) ExitCode() int   { return exitUsage }

// misused returns a usage error of cmd. If err has no hint of its own, the hint names the help.
func misused(cmd *cobra.Command, err error) error {
	p := problem.Coded(err, "wrong-usage")
	if problem.Hint(p) == "" {
		p = &problem.Problem{Code: p.Code, Err: err, Hint: cmd.CommandPath() + " --help"}
	}
	return usageError{p}
}

// didYouMean returns a hint if one of candidates is similar to name, or "".
func didYouMean(name string, candidates []string) string {
	if near := spelling.Nearest(name, candidates); near != "" && near != name {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return ""
}

// noArgs refuses arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return misused(cmd, fmt.Errorf("%s takes no argument, but %q is given", commandName(cmd), args[0]))
}

// oneArg wants one argument; what says what it is, such as "a registry".
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return misused(cmd, fmt.Errorf("%s needs %s", commandName(cmd), what))
		}
		return atMostOneArg(what)(cmd, args)
	}
}

// atMostOneArg wants one argument or none. It does not repeat the others, which may be a password.
func atMostOneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return misused(cmd, fmt.Errorf("%s takes %s and nothing else, but %d arguments are given", commandName(cmd), what, len(args)))
		}
		return nil
	}
}

// someArgs wants at least one argument.
func someArgs(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return misused(cmd, fmt.Errorf("%s needs %s", commandName(cmd), what))
		}
		return nil
	}
}

// choiceArg wants one of choices.
func choiceArg(what string, choices ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := oneArg(what)(cmd, args); err != nil {
			return err
		}
		if slices.Contains(choices, args[0]) {
			return nil
		}
		return misused(cmd, &problem.Problem{
			Text: fmt.Sprintf("%s takes %s, not %q", commandName(cmd), orText(choices), args[0]),
			Hint: didYouMean(args[0], choices),
		})
	}
}

// commandName is "cache ls".
func commandName(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// orText is "bash, zsh or fish".
func orText(list []string) string {
	last := len(list) - 1
	if last < 1 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:last], ", ") + " or " + list[last]
}

// runGroup is for a command that only has subcommands.
func runGroup(cmd *cobra.Command, args []string) error {
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	if len(args) == 0 {
		return misused(cmd, fmt.Errorf("%s needs a command: %s", commandName(cmd), orText(names)))
	}
	text := fmt.Sprintf("unknown command %q", strings.TrimPrefix(cmd.CommandPath()+" "+args[0], cmd.Root().Name()+" "))
	return misused(cmd, &problem.Problem{Text: text, Hint: didYouMean(args[0], names)})
}

// runRoot is for a command line without a subcommand, or with an unknown one.
func runRoot(cmd *cobra.Command, args []string) error {
	if version, err := cmd.Flags().GetBool("version"); err == nil && version && len(args) == 0 {
		return printVersion(cmd.OutOrStdout())
	}
	if len(args) == 0 {
		return cmd.Help()
	}
	return runGroup(cmd, args)
}

// flagError explains what the parser of flags refuses.
func flagError(cmd *cobra.Command, err error) error {
	var (
		unknown *pflag.NotExistError
		lacking *pflag.ValueRequiredError
		invalid *pflag.InvalidValueError
		syntax  *pflag.InvalidSyntaxError
	)
	switch {
	case errors.As(err, &unknown):
		name, hint := "-"+unknown.GetSpecifiedName(), ""
		if unknown.GetSpecifiedShortnames() == "" {
			name = "-" + name
			hint = didYouMean(name, flagNames(cmd))
		}
		err = &problem.Problem{Text: "unknown flag " + name, Hint: hint}
	case errors.As(err, &lacking):
		what, _ := pflag.UnquoteUsage(lacking.GetFlag())
		err = fmt.Errorf("--%s needs a value (%s)", lacking.GetFlag().Name, what)
	case errors.As(err, &invalid):
		err = fmt.Errorf("--%s takes %s, not %q", invalid.GetFlag().Name, valueText(invalid.GetFlag()), invalid.GetValue())
	case errors.As(err, &syntax):
		err = fmt.Errorf("%q is not a flag", syntax.GetSpecifiedFlag())
	}
	return misused(cmd, err)
}

// valueText says what a flag takes.
func valueText(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "bool":
		return "true or false"
	case "int":
		return "a number"
	case "duration":
		return `a duration such as "30s"`
	}
	name, _ := pflag.UnquoteUsage(f)
	return "a " + name
}

// flagNames returns all flags of cmd, such as "--json".
func flagNames(cmd *cobra.Command) (names []string) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, "--"+f.Name)
		}
	})
	return names
}
