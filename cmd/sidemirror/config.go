package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/listener"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/internal/problem"
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

func newConfigCheckCommand(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Report what is wrong with the configuration, if anything",
		Long: `Read the configuration as "sidemirror serve" does, including the SIDEMIRROR_…
variables of the environment. Print "ok" and the name of the file, or everything
that is wrong with it, with the line and a hint (exit code 2).

A note is printed if any user of this host could listen on the port while
sidemirror does not, and if the addresses in listen are not those that systemd
opens for sidemirror. Notes do not change the exit code.

FILE may be a file that is going to replace the one in force.`,
		Example: `  sidemirror config check
  sidemirror config check /tmp/new.toml`,
		Args: atMostOneArg("one file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := g.configPath
			if len(args) == 1 {
				path = args[0]
			}
			c, err := config.Load(path, os.Environ())
			if err != nil && asJSON {
				return writeFaulty(cmd.OutOrStdout(), err)
			} else if err != nil {
				return err
			}
			notes := addressNotes(cmd.Context(), c, sdnotify.Units{}.SocketAddresses)
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), checked{OK: true, File: c.File, Problems: []*problem.Problem{}, Notes: append([]*problem.Problem{}, notes...)})
			}
			if err := writeNotes(cmd.ErrOrStderr(), notes); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "ok %s\n", c.File)
			return err
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

// checked is what "sidemirror config check --json" prints. docs/json.md describes it.
type checked struct {
	OK       bool               `json:"ok"`
	File     string             `json:"file,omitempty"` // if the configuration can be used
	Problems []*problem.Problem `json:"problems"`
	Notes    []*problem.Problem `json:"notes"`
}

// writeFaulty prints why a configuration cannot be used, as JSON, and returns the exit code.
func writeFaulty(w io.Writer, err error) error {
	out := checked{Notes: []*problem.Problem{}}
	if faulty, ok := errors.AsType[*config.Error](err); ok {
		out.Problems = faulty.Problems()
	} else {
		out.Problems = []*problem.Problem{problem.Coded(err, "config-invalid")}
	}
	if writeErr := writeJSON(w, out); writeErr != nil {
		return writeErr
	}
	return exitSilently(exitCode(err))
}

// addressNotes returns what is worth knowing about the addresses of c. sockets returns where
// systemd holds sockets open, if it runs here.
func addressNotes(ctx context.Context, c *config.Config, sockets func(context.Context) ([]netip.AddrPort, error)) []*problem.Problem {
	var notes []*problem.Problem
	for _, addr := range c.Listen {
		if p := listener.CheckPort(addr); p != nil {
			notes = append(notes, p)
		}
	}
	if open, err := sockets(ctx); err == nil && len(open) > 0 {
		if p := listener.CheckServed(open, c.Listen); p != nil {
			notes = append(notes, p)
		}
	}
	return notes
}

func writeNotes(w io.Writer, notes []*problem.Problem) error {
	for _, note := range notes {
		if _, err := fmt.Fprintln(w, problem.Format("note: ", note)); err != nil {
			return err
		}
	}
	return nil
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
