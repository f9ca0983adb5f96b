package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/sidemirror/sidemirror/daemon"
	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/listener"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/daemon/siteconfig"
	"github.com/sidemirror/sidemirror/internal/durable"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// siteEdit is one run of "site enable" or "site disable".
type siteEdit struct {
	source  config.Source
	out     io.Writer
	json    bool
	systemd func(file string) bool // reports whether it runs the proxy with that file

	// ownPorts says that the proxy opens the addresses of the site, and not systemd.
	ownPorts bool
}

// siteChange is what "sidemirror site enable --json" and "site disable --json" print. docs/json.md
// describes it.
type siteChange struct {
	File    string             `json:"file"`
	Changed bool               `json:"changed"` // the file was
	Names   []string           `json:"names"`
	Unit    string             `json:"unit,omitempty"` // that systemd has opened or closed
	Notes   []*problem.Problem `json:"notes"`
}

func (s siteEdit) enable(ctx context.Context, settings []siteconfig.Setting) error {
	done, c, err := s.write(ctx, func(data []byte) ([]byte, error) {
		all := settings
		if users, found := siteconfig.Users(data); found { // "site user add" wrote it
			all = slices.Concat(settings, []siteconfig.Setting{users})
		}
		return siteconfig.Add(siteconfig.Remove(data), all)
	})
	if err != nil {
		return err
	}
	done.Names = c.SiteNames()
	if s.systemd(done.File) {
		if err := s.open(ctx, &done, c); err != nil {
			return err
		}
	}
	lines := []string{done.File + " is written: " + strings.Join(done.Names, ", ")}
	switch {
	case s.ownPorts:
		lines = append(lines, "sidemirror serves at "+joined(c.Site.Listen))
	case done.Unit != "":
		lines = append(lines, "systemd has opened the ports of "+done.Unit)
	}
	return s.print(done, append(lines, "to see the certificates: sudo sidemirror site status", "to undo it: sudo sidemirror site disable"))
}

// open lets systemd open the ports of the site; or close them, if the proxy opens its own.
func (s siteEdit) open(ctx context.Context, done *siteChange, c *config.Config) error {
	if s.ownPorts {
		return s.close(ctx, done)
	}
	plain, err := sdnotify.Units{}.EnableSite(ctx)
	switch {
	case errors.Is(err, sdnotify.ErrNoSiteUnit):
		done.Notes = append(done.Notes, &problem.Problem{
			Code: "site-unit-missing", Text: "the file is written, and no unit opens the ports", Err: err,
			Hint: "set listen in [site] of " + done.File,
		})
		return nil
	case err != nil:
		return unopened(done.File, err)
	}
	done.Unit = sdnotify.SiteUnit
	if by := listener.TakenBy(allAddresses(80)); !plain && by != "" && c.Site.TLS != "off" {
		done.Notes = append(done.Notes, daemon.PlainHTTPTaken(by))
	}
	return nil
}

// close lets systemd close the ports of the site.
func (s siteEdit) close(ctx context.Context, done *siteChange) error {
	changed, err := sdnotify.Units{}.DisableSite(ctx)
	if err != nil {
		return &problem.Problem{
			Code: "site-unit-failed", Text: done.File + " is changed, and the ports of systemd could not be closed", Err: err,
			Hint: "systemctl disable --now " + sdnotify.SiteUnit + " " + sdnotify.SiteHTTPUnit,
		}
	}
	if changed {
		done.Unit = sdnotify.SiteUnit
	}
	return nil
}

// joined returns addresses with commas between them.
func joined(addrs []netip.AddrPort) string {
	texts := make([]string, len(addrs))
	for i, addr := range addrs {
		texts[i] = addr.String()
	}
	return strings.Join(texts, ", ")
}

// allAddresses returns the port at all addresses of this host, as the units of the site open it.
func allAddresses(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.IPv6Unspecified(), port)
}

// unopened returns the problem that systemd could not open the port of the site.
func unopened(file string, err error) *problem.Problem {
	p := &problem.Problem{
		Code: "site-unit-failed", Text: file + " is written, and the ports could not be opened", Err: err,
		Hint: "systemctl status " + sdnotify.SiteUnit + "; to use another port: systemctl edit " + sdnotify.SiteUnit,
	}
	if by := listener.TakenBy(allAddresses(443)); by != "" {
		p.Text = file + " is written, and the site is not served: port 443 is taken " + by
		p.Hint = "end that program, and run this again; or let it be a reverse proxy, with --behind-proxy and --listen"
	}
	return p
}

func (s siteEdit) disable(ctx context.Context) error {
	done, _, err := s.write(ctx, func(data []byte) ([]byte, error) { return siteconfig.Remove(data), nil })
	if err != nil {
		return err
	}
	if s.systemd(done.File) {
		if err := s.close(ctx, &done); err != nil {
			return err
		}
	}
	lines := []string{"there is nothing of \"site enable\" in " + done.File}
	if done.Changed {
		lines[0] = done.File + " is without what \"site enable\" wrote"
	}
	if done.Unit != "" {
		lines = append(lines, "systemd has closed the ports of "+done.Unit)
	}
	return s.print(done, lines)
}

func (s siteEdit) print(done siteChange, lines []string) error {
	if s.json {
		return writeJSON(s.out, done)
	}
	p := newPrinter(s.out)
	for _, line := range lines {
		p.printf("%s\n", line)
	}
	if p.err != nil {
		return p.err
	}
	return writeNotes(s.out, done.Notes)
}

// write changes the configuration file, if what it becomes can be used.
func (s siteEdit) write(ctx context.Context, change func([]byte) ([]byte, error)) (siteChange, *config.Config, error) {
	done := siteChange{File: s.source.File(), Names: []string{}, Notes: []*problem.Problem{}}
	// Without the lock, two of these commands at once would write one temporary file.
	folder, err := openFolder(filepath.Dir(done.File))
	if err == nil {
		defer folder.Close()
		err = durable.Lock(ctx, folder)
	}
	if err != nil {
		return done, nil, explainSite(err)
	}
	before, err := os.ReadFile(done.File)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return done, nil, explainSite(err)
	}
	after, err := change(before)
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		p.Path = done.File
	}
	if err != nil {
		return done, nil, err
	}
	c, err := s.source.Parse(after)
	if err != nil {
		return done, nil, fmt.Errorf("nothing was written, because the result could not be used: %w", err)
	}
	if done.Changed = string(before) != string(after); !done.Changed {
		return done, c, nil
	}
	return done, c, explainSite(replaceConfig(folder, done.File, after, missing))
}

// openFolder opens a folder, which it makes if there is none.
func openFolder(name string) (*os.File, error) {
	folder, err := os.Open(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return folder, err
	}
	if err := os.MkdirAll(name, 0o755); err != nil {
		return nil, err
	}
	return os.Open(name)
}

func explainSite(err error) error {
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return &problem.Problem{Code: "not-root", Text: "changing the configuration", Err: err, Hint: "run as root"}
	}
	return err
}

// replaceConfig writes a configuration file, with the mode and the owner that it has.
func replaceConfig(folder *os.File, name string, data []byte, create bool) error {
	return durable.Replace(folder, filepath.Base(name), data, durable.Options{New: create, Prepare: func(f *os.File) error {
		if create {
			return f.Chmod(0o644)
		}
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			if err := f.Chown(int(stat.Uid), int(stat.Gid)); err != nil {
				return err
			}
		}
		return f.Chmod(info.Mode().Perm())
	}})
}

// servedBySystemd reports whether systemd runs here (sd_booted(3)), and a configuration file is that of
// its service. Another file is for a proxy that is run by hand.
func servedBySystemd(file string) bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil && file == config.DefaultFile
}
