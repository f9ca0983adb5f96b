package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/config"
)

func newConfigCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check the configuration, or show what is in force",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return flagError(cmd, fmt.Errorf("config needs to be told: check or show"))
		},
	}
	cmd.AddCommand(newConfigCheckCommand(g), newConfigShowCommand(g))
	return cmd
}

func newConfigCheckCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say what is wrong with the configuration, or that nothing is",
		Long: `Read the configuration as serve would, the environment's SIDEMIRROR_… included,
and print "ok" and the file, or everything that is wrong with it (exit 2).
FILE may be the file that is going to replace the one in force.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := g.configPath
			if len(args) == 1 {
				path = args[0]
			}
			c, err := config.Load(path, os.Environ())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "ok %s\n", c.File)
			return err
		},
	}
}

func newConfigShowCommand(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print every value in force, with where it comes from",
		Long: `Print every value in force in the file's own form, each with a comment that says
where it comes from: the default, a line of the file, or a variable.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(g.configPath, os.Environ())
			if err != nil {
				return err
			}
			if asJSON {
				return c.WriteJSON(cmd.OutOrStdout())
			}
			return c.WriteTOML(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, for programs")
	return cmd
}
