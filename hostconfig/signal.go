package hostconfig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Signaler tells engines that their configuration has changed. containerd dies of
// SIGHUP, so for it there is only Restart.
type Signaler interface {
	// Running reports whether dockerd runs on this host.
	Running(ctx context.Context) bool

	// Reload has dockerd read daemon.json again. That it was told does not mean that it took it.
	Reload(ctx context.Context) error

	// Mirrors are the registry mirrors that dockerd has in force.
	Mirrors(ctx context.Context) ([]string, error)

	// Restart restarts containerd and waits until it is up. Containers go on running.
	Restart(ctx context.Context) error
}

// system is the running host's engines.
type system struct{ tree *tree }

const dockerSocket = "/var/run/docker.sock"

func (s system) pid() int {
	d := &docker{&planner{tree: s.tree}}
	pid, err := strconv.Atoi(d.dockerd("/var/run/docker.pid"))
	if err != nil {
		return 0
	}
	return pid
}

func (s system) Running(context.Context) bool { return s.pid() != 0 }

func (s system) Reload(ctx context.Context) error {
	if booted() && runQuiet(ctx, 5*time.Second, "is-active", "--quiet", "docker.service") == nil {
		if err := runQuiet(ctx, 30*time.Second, "reload", "docker.service"); err != nil {
			return fmt.Errorf("reloading docker: %w; see journalctl -u docker", err)
		}
		return nil
	}
	pid := s.pid()
	if pid == 0 {
		return errors.New("reloading docker: it does not run any more")
	}
	// The descriptor is of this very process: a pid that is reused between here and
	// the signal cannot be hit.
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("reloading docker: %w", err)
	}
	defer unix.Close(fd)
	if s.pid() != pid {
		return errors.New("reloading docker: it was restarted just now; run again")
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGHUP, nil, 0); err != nil {
		return fmt.Errorf("reloading docker: %w", err)
	}
	return nil
}

func (s system) Mirrors(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", dockerSocket)
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/info", nil)
	if err != nil {
		return nil, fmt.Errorf("asking docker for its mirrors: %w", err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("asking docker for its mirrors: %w", err)
	}
	defer resp.Body.Close()
	var info struct{ RegistryConfig struct{ Mirrors []string } }
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("asking docker for its mirrors: it answers %s", resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 4<<20)).Decode(&info); err != nil {
		return nil, fmt.Errorf("asking docker for its mirrors: %w", err)
	}
	return info.RegistryConfig.Mirrors, nil
}

func (s system) Restart(ctx context.Context) error {
	if !booted() {
		return errors.New("restarting containerd: systemd does not run here; restart it by hand")
	}
	if err := runQuiet(ctx, 90*time.Second, "restart", "containerd.service"); err != nil {
		return fmt.Errorf("restarting containerd: %w; see journalctl -u containerd, and sidemirror revert", err)
	}
	return nil
}

// booted is sd_booted(3).
func booted() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}
