package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon"
	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/listener"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/internal/portowner"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/sandbox"
)

func newConfigCheckCommand(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Report what is wrong with the configuration, if anything",
		Long: `Read the configuration as "sidemirror serve" does, including the SIDEMIRROR_…
variables of the environment, and everything that it names: certificates, credential
files, the cache folder, the addresses. If systemd runs sidemirror, root checks as the
service's user, and with the files that the service sees. Print "ok" and the name of
the file, or everything that is wrong with it, with the line and a hint.

The exit code is 0 if all is well, 1 if sidemirror would serve without something that
the configuration names, and 2 if it would not use the configuration at all.

A note is printed if any user of this host could listen on the port while sidemirror
does not. Notes do not change the exit code.

FILE may be a file that is going to replace the one in force.`,
		Example: `  sudo sidemirror config check
  sudo sidemirror config check /tmp/new.toml`,
		Args: atMostOneArg("one file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			source := config.Source{Path: g.configPath, Environ: os.Environ()}
			if len(args) == 1 {
				source.Path = args[0]
			}
			check := configCheck{source: source, inForce: len(args) == 0, systemd: sdnotify.Units{}}
			c, err := check.run(cmd.Context())
			if asJSON {
				return writeCheckedJSON(cmd.OutOrStdout(), c, check.notes, err)
			}
			if err := writeNotes(cmd.ErrOrStderr(), check.notes); err != nil {
				return err
			}
			if err != nil {
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

// writeCheckedJSON prints what a check found, and returns the exit code.
func writeCheckedJSON(w io.Writer, c *config.Config, notes []*problem.Problem, err error) error {
	out := checked{OK: err == nil, Problems: []*problem.Problem{}, Notes: append([]*problem.Problem{}, notes...)}
	if c != nil {
		out.File = c.File
	}
	for _, part := range problem.Split(err) {
		if faulty, ok := errors.AsType[*config.Error](part); ok {
			out.Problems = append(out.Problems, faulty.Problems()...)
		} else {
			out.Problems = append(out.Problems, problem.Coded(part, "config-invalid"))
		}
	}
	if writeErr := writeJSON(w, out); writeErr != nil || err == nil {
		return writeErr
	}
	return exitSilently(exitCode(err))
}

// serviceManager is what a check asks about the proxy's units. [sdnotify.Units] is one.
type serviceManager interface {
	SocketAddresses(ctx context.Context) ([]netip.AddrPort, error)
	Proxy(ctx context.Context) (service sandbox.Service, found bool, err error)
}

// configCheck is one run of "config check".
type configCheck struct {
	source  config.Source
	inForce bool // the service reads the same file
	systemd serviceManager
	notes   []*problem.Problem
}

// refusedError is what makes sidemirror refuse a configuration: wrong usage.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }
func (refusedError) ExitCode() int   { return exitUsage }

// run returns the configuration, or everything that is wrong with it.
func (k *configCheck) run(ctx context.Context) (*config.Config, error) {
	c, err := k.source.Load()
	if err != nil {
		return nil, refusedError{err}
	}
	open, err := k.systemd.SocketAddresses(ctx)
	if err == nil {
		if err := c.UseSockets(open); err != nil {
			return nil, err
		}
	}
	var wrong []error
	if len(open) == 0 {
		wrong = checkAddresses(ctx, c.Listen)
	}
	for _, addr := range c.Listen {
		if p := listener.CheckPort(addr); p != nil {
			k.notes = append(k.notes, p)
		}
	}
	problems, err := k.asTheService(ctx, c)
	if err != nil {
		return nil, errors.Join(append(wrong, refusedError{missingFile(err)})...)
	}
	for _, p := range problems {
		wrong = append(wrong, p)
	}
	return c, errors.Join(wrong...)
}

// asTheService checks what c names as the service's user, if systemd runs the proxy here and the
// caller can become that user, and else as the caller.
func (k *configCheck) asTheService(ctx context.Context, c *config.Config) (problems []*problem.Problem, err error) {
	service, found, findErr := k.systemd.Proxy(ctx)
	found = found && findErr == nil
	switch uid := os.Geteuid(); {
	case found && service.UID == uint32(uid), !found && uid == 0:
		return k.provision(c, false)
	case uid != 0:
		k.note("what only the user of the service can read was not checked", "run as root")
		problems, err = k.provision(c, false)
		if errors.Is(err, fs.ErrPermission) {
			return nil, nil // the service may be allowed to
		}
		return slices.DeleteFunc(problems, func(p *problem.Problem) bool { return errors.Is(p, fs.ErrPermission) }), err
	}
	if entered := sandbox.Run(service, func() { problems, err = k.provision(c, k.inForce) }); entered != nil {
		k.note("what the user of the service can read was not checked: "+entered.Error(), "")
		return k.provision(c, false)
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) && !isMissing(err) {
		err = &problem.Problem{
			Code: "config-unreadable", Text: "the user of the service cannot read what the configuration needs", Err: err,
			Hint: "put the file where the service can read it, such as /etc/sidemirror; /root, /home and /tmp are hidden from it",
		}
	}
	if service.PID != 0 {
		return problems, err
	}
	// systemd passes credentials to a service that runs.
	return slices.DeleteFunc(problems, func(p *problem.Problem) bool {
		passed := errors.Is(p, fs.ErrNotExist) && strings.Contains(p.Error(), "/run/credentials/")
		if passed {
			k.note("not checked, because "+sdnotify.ProxyUnit+" does not run: "+p.Err.Error(), "systemctl start "+sdnotify.ProxyUnit)
		}
		return passed
	}), err
}

// isMissing reports whether err is about a file that the caller does not find either.
func isMissing(err error) bool {
	e, ok := errors.AsType[*fs.PathError](err)
	if !ok || !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, err = os.Stat(e.Path)
	return errors.Is(err, fs.ErrNotExist)
}

// missingFile adds to an error about a file that does not exist what to do.
func missingFile(err error) error {
	if _, ok := errors.AsType[*problem.Problem](err); ok || !isMissing(err) {
		return err
	}
	return &problem.Problem{
		Code: "config-unreadable", Text: "the configuration names a file that does not exist", Err: err,
		Hint: "correct the path, or create the file",
	}
}

// provision checks what c names, and with again also that its file can be read.
func (k *configCheck) provision(c *config.Config, again bool) ([]*problem.Problem, error) {
	if again {
		if _, err := k.source.Load(); err != nil {
			return nil, fmt.Errorf("as the user of the service: %w", err)
		}
	}
	info, _ := debug.ReadBuildInfo()
	return daemon.Check(c, buildVersion(info))
}

func (k *configCheck) note(text, hint string) {
	k.notes = append(k.notes, &problem.Problem{Code: "not-checked", Text: text, Hint: hint})
}

// checkAddresses returns what would keep "sidemirror serve" from opening sockets.
func checkAddresses(ctx context.Context, listen []netip.AddrPort) []error {
	var wrong []error
	for _, addr := range listen {
		owner, err := portowner.Of(addr)
		if err == nil && owner.Found && !owner.Trusted {
			wrong = append(wrong, &problem.Problem{
				Code: "proxy-port-taken", Text: fmt.Sprintf("listen: a process of user %s listens at %v", owner.Name, addr),
				Hint: fmt.Sprintf("find and end it: ss -ltnp sport = %d", addr.Port()),
			})
		}
		l, err := listener.Open(ctx, netip.AddrPortFrom(addr.Addr(), 0))
		switch {
		case err == nil:
			_ = l.Close()
		case len(listen) > 1 && addr.Addr() == netip.IPv6Loopback(): // left out if the host has no IPv6
		default:
			wrong = append(wrong, &problem.Problem{
				Code: "listen-unavailable", Text: fmt.Sprintf("listen: this host cannot listen at %v, which is not one of its addresses", addr.Addr()), Hint: "see which it has: ip address",
			})
		}
	}
	return wrong
}

func writeNotes(w io.Writer, notes []*problem.Problem) error {
	for _, note := range notes {
		if _, err := fmt.Fprintln(w, problem.Format("note: ", note)); err != nil {
			return err
		}
	}
	return nil
}
