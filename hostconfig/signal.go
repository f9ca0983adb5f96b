package hostconfig

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
)

// Units is the service manager that the engines run under.
type Units interface {
	// Reload and Restart do that to a unit, named with its suffix ("docker.service"),
	// and answer when the job is done: with an error where it failed.
	Reload(ctx context.Context, unit string) error
	Restart(ctx context.Context, unit string) error
}

// signaler tells engines that their configuration has changed. containerd dies of
// SIGHUP, so for it there is only Restart.
type signaler interface {
	// Running reports whether dockerd runs on this host.
	Running(ctx context.Context) bool

	// Reload has dockerd read daemon.json again. That it was told does not mean that it took it.
	Reload(ctx context.Context) error

	// Info is what dockerd has in force.
	Info(ctx context.Context) (info, error)

	// Pull has an engine pull an image, and answers with why it could not.
	Pull(ctx context.Context, q ask, reference string) error

	// Restart restarts containerd and waits until it is up. Containers go on running.
	Restart(ctx context.Context) error
}

// info is what dockerd says of itself.
type info struct {
	version string
	mirrors []string
	store   string // "containerd", or a graph driver's name
}

// system is the running host's engines.
type system struct {
	tree  *hostfs.Host
	units Units
}

// signals is who tells this host's engines; nil where nobody does.
func (h *Host) signals(t *hostfs.Host) signaler {
	switch {
	case h.signaler != nil:
		return h.signaler
	case h.Units != nil:
		return system{t, h.Units}
	}
	return nil
}

func (s system) Running(context.Context) bool { return runningDockerd(s.tree) != nil }

// Reload goes by systemd, which knows how the unit wants it, and where that does not do
// it by the signal itself: ExecReload of docker.service needs a kill(1), which small
// images lack.
func (s system) Reload(ctx context.Context) error {
	running := runningDockerd(s.tree)
	if running == nil {
		return errors.New("reloading docker: it does not run any more")
	}
	err := errors.New("no unit of systemd's runs it")
	if unit := unitOf(s.tree, running.pid); unit != "" && s.booted() {
		if err = s.units.Reload(ctx, unit); err == nil {
			return nil
		}
		err = fmt.Errorf("%w; see journalctl -u %s", err, unit)
	}
	// A pid of another tree's is nobody we know.
	if s.tree.Dir() == "/" {
		err = s.hangUp(running.pid)
	}
	if err != nil {
		return fmt.Errorf("reloading docker: %w", err)
	}
	return nil
}

func (s system) hangUp(pid int) error {
	// The descriptor is of this very process: a pid that is reused between here and
	// the signal cannot be hit.
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if again := runningDockerd(s.tree); again == nil || again.pid != pid {
		return errors.New("it was restarted just now; run again")
	}
	return unix.PidfdSendSignal(fd, unix.SIGHUP, nil, 0)
}

// socket is where dockerd listens: the first unix socket among its flags.
func (s system) socket() string {
	if running := runningDockerd(s.tree); running != nil {
		for _, host := range flags(running.args, "--host", "-H") {
			if name, ok := strings.CutPrefix(host, "unix://"); ok {
				return name
			}
		}
	}
	return "/var/run/docker.sock"
}

func (s system) Info(ctx context.Context) (info, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.socket())
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/info", nil)
	if err != nil {
		return info{}, fmt.Errorf("asking docker for its configuration: %w", err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return info{}, fmt.Errorf("asking docker for its configuration: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return info{}, fmt.Errorf("asking docker for its configuration: it answers %s", resp.Status)
	}
	out, err := readInfo(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return info{}, fmt.Errorf("asking docker for its configuration: %w", err)
	}
	return out, nil
}

// readInfo reads the answer of GET /info (Docker Engine API). The containerd store
// shows itself by a driver-type among the driver's status.
func readInfo(r io.Reader) (info, error) {
	var said struct {
		ServerVersion, Driver string
		DriverStatus          [][2]string
		RegistryConfig        struct{ Mirrors []string }
	}
	if err := json.NewDecoder(r).Decode(&said); err != nil {
		return info{}, err
	}
	out := info{version: said.ServerVersion, mirrors: said.RegistryConfig.Mirrors, store: said.Driver}
	for _, pair := range said.DriverStatus {
		if pair[0] == "driver-type" && strings.HasPrefix(pair[1], "io.containerd.snapshotter.") {
			out.store = containerdStore
		}
	}
	return out, nil
}

func (s system) Restart(ctx context.Context) error {
	if !s.booted() {
		return errors.New("restarting containerd: systemd does not run here; restart it by hand")
	}
	unit := "containerd.service"
	if running := runningContainerd(s.tree); running != nil {
		unit = cmp.Or(unitOf(s.tree, running.pid), unit)
	}
	if err := s.units.Restart(ctx, unit); err != nil {
		return fmt.Errorf("restarting containerd: %w; see journalctl -u %s, and sidemirror revert", err, unit)
	}
	return nil
}

// booted is sd_booted(3).
func (s system) booted() bool { return s.tree.IsDir("/run/systemd/system") }
