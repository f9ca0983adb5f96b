package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// helpWidth is the width of help that does not go to a terminal.
const helpWidth = 80

func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show the help of a command",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			of, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, sub := range of.Commands() {
				if sub.IsAvailableCommand() {
					names = append(names, cobra.CompletionWithDesc(sub.Name(), sub.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			if err != nil {
				return misused(cmd, err)
			}
			if len(rest) > 0 {
				return runGroup(of, rest)
			}
			return of.Help()
		},
	}
}

// showHelp prints the help of a command, wrapped at the width of the terminal.
func showHelp(cmd *cobra.Command, _ []string) {
	w := cmd.OutOrStdout()
	width := cmp.Or(terminalWidth(w), helpWidth)
	_, _ = io.WriteString(w, helpText(cmd, width)) // an error means that the reader is gone
}

// helpText is the help of a command in lines of width columns.
func helpText(cmd *cobra.Command, width int) string {
	cmd.InitDefaultHelpFlag()
	var b strings.Builder
	b.WriteString(wrapText(cmp.Or(cmd.Long, cmd.Short+"."), width))
	section := func(title, text string) {
		fmt.Fprintf(&b, "\n%s:\n%s\n", title, strings.TrimRight(text, "\n"))
	}
	usage := cmd.UseLine()
	if cmd.HasAvailableSubCommands() {
		usage = cmd.CommandPath() + " COMMAND [flags]"
	}
	section("Usage", hang("  ", "    ", usage, width))
	if cmd.HasExample() {
		section("Examples", cmd.Example)
	}
	if cmd.HasAvailableSubCommands() {
		section("Commands", commandList(cmd, width))
	}
	if cmd.HasAvailableLocalFlags() {
		section("Flags", cmd.LocalFlags().FlagUsagesWrapped(width))
	}
	if cmd.HasAvailableInheritedFlags() {
		section("Global flags", cmd.InheritedFlags().FlagUsagesWrapped(width))
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n%s COMMAND --help shows the help of a command.\n", cmd.CommandPath())
	}
	return b.String()
}

// commandList lists the subcommands, each with what it does.
func commandList(cmd *cobra.Command, width int) string {
	var b strings.Builder
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			name := fmt.Sprintf("  %-*s ", sub.NamePadding(), sub.Name())
			b.WriteString(hang(name, strings.Repeat(" ", len(name)), sub.Short, width) + "\n")
		}
	}
	return b.String()
}
