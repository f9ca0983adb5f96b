package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon"
	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
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
environment. Comments at the end name the registries that are served because of a login, and
the engines' forward proxy if it is used.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(g.configPath, os.Environ())
			if err != nil {
				return err
			}
			if asJSON {
				return c.WriteJSON(cmd.OutOrStdout())
			}
			if err := c.WriteTOML(cmd.OutOrStdout()); err != nil {
				return err
			}
			names, err := (&hostFlags{globals: g, root: "/"}).loggedIn()
			if err != nil {
				return err
			}
			if err := writeLoggedIn(cmd.OutOrStdout(), c, names); err != nil {
				return err
			}
			return writeAdoptedProxy(cmd.OutOrStdout(), c)
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

// writeAdoptedProxy writes a comment that names the engines' forward proxy, if registries are reached
// through it. A user who may not read what is handed over does not see it.
func writeAdoptedProxy(w io.Writer, c *config.Config) error {
	if c.Engine.HandoverDir == "" || !c.Outbound.HTTPProxy.IsZero() || !c.Outbound.HTTPSProxy.IsZero() {
		return nil
	}
	found, err := handover.Read(c.Engine.HandoverDir)
	if err != nil {
		return nil //nolint:nilerr // status reports it
	}
	if o := daemon.Outbound(c, found.Proxy); o != nil {
		_, err = fmt.Fprintf(w, "\n# Registries are reached %s.\n", printable(outboundText(*o)))
	}
	return err
}

// writeLoggedIn writes comments that name the registries that are served because of a login.
func writeLoggedIn(w io.Writer, c *config.Config, names []string) error {
	for _, name := range names {
		if c.Registry(name) != nil {
			continue
		}
		if _, err := fmt.Fprintf(w, "\n# %s has no table; it is served because there is a login for it.\n", name); err != nil {
			return err
		}
	}
	return nil
}
