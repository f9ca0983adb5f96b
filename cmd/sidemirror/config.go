package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/config"
)

func newConfigCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check the configuration, or show what is in force",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return misused(cmd, errors.New("config needs a subcommand: check or show"))
		},
	}
	cmd.AddCommand(newConfigCheckCommand(g), newConfigShowCommand(g))
	return cmd
}

func newConfigShowCommand(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print every value in force and where it comes from",
		Long: `Print every value in force, in the format of the file. A comment says where each
value comes from: the default, a line of the file, or a variable of the
environment.`,
		Args: noArgs,
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
	addJSON(cmd, &asJSON)
	return cmd
}
