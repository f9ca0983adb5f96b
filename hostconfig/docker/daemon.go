package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/process"
	"github.com/sidemirror/sidemirror/hostconfig/socket"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// Query finds the host's own dockerd: the one with the usual pid file, of which there can be but
// one. One that only prints something, as when it is asked for its version, is no daemon: to take it
// for one would be to start Docker, by asking at its socket.
var Query = process.Query{
	Name: "dockerd", Units: []string{"docker.service"}, Socket: defaultSocket, SocketUnits: []string{"docker.socket"},
	Accept: func(p process.Process) bool {
		pidfile := process.Flag(p.Args, "--pidfile", "-p")
		usual := pidfile == "" || pidfile == "/var/run/docker.pid" || pidfile == "/run/docker.pid"
		return usual && !slices.ContainsFunc(p.Args, func(arg string) bool {
			return slices.Contains([]string{"--version", "-v", "--validate", "--help", "-h"}, arg)
		})
	},
}

const (
	defaultSocket = "/run/docker.sock"
	infoLimit     = 5 * time.Second
	maxInfo       = 4 << 20
)

// daemon is a running dockerd.
type daemon struct {
	process.Process
	units live.Units
}

// Connect returns the daemon that is a process.
func Connect(p process.Process, units live.Units) live.Daemon { return daemon{p, units} }

func (d daemon) Args() []string     { return d.Process.Args }
func (d daemon) Started() time.Time { return d.Process.Started }

// socket is where dockerd listens: the first Unix socket among its flags.
func (d daemon) socket() string {
	for _, host := range process.Flags(d.Process.Args, "--host", "-H") {
		if name, ok := strings.CutPrefix(host, "unix://"); ok {
			return name
		}
	}
	return defaultSocket
}

// Info is GET /info of the Docker Engine API.
func (d daemon) Info(ctx context.Context) (live.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, infoLimit)
	defer cancel()
	failed := func(err error) (live.Info, error) {
		return live.Info{}, fmt.Errorf("asking docker for its configuration: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/info", nil)
	if err != nil {
		return failed(err)
	}
	resp, err := socket.Transport(d.socket(), false).RoundTrip(req)
	if err != nil {
		return failed(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return failed(fmt.Errorf("it answered %s", resp.Status))
	}
	info, err := readInfo(io.LimitReader(resp.Body, maxInfo))
	if err != nil {
		return failed(err)
	}
	return info, nil
}

// readInfo reads the answer to GET /info. The containerd store shows by a driver-type in the
// driver's status.
func readInfo(r io.Reader) (live.Info, error) {
	var said struct {
		ServerVersion, Driver string
		DriverStatus          [][2]string
		RegistryConfig        struct{ Mirrors []string }
	}
	if err := json.NewDecoder(r).Decode(&said); err != nil {
		return live.Info{}, err
	}
	info := live.Info{Version: said.ServerVersion, Mirrors: said.RegistryConfig.Mirrors, Store: said.Driver}
	for _, pair := range said.DriverStatus {
		if pair[0] == "driver-type" && strings.HasPrefix(pair[1], "io.containerd.snapshotter.") {
			info.Store = containerdStore
		}
	}
	return info, nil
}

// Signal reloads dockerd.
func (d daemon) Signal(ctx context.Context, verb live.Verb) error {
	if verb != live.Reload {
		return fmt.Errorf("docker is never told to %s", verb)
	}
	if err := d.Reload(ctx, d.units.Reload); err != nil {
		return &problem.Problem{Code: "docker-reload-failed", Text: "reloading docker", Err: err, Hint: "systemctl reload docker; see journalctl -u docker"}
	}
	return nil
}

// Pull is POST /images/create of the Docker Engine API, which docker pull uses. An error is in the
// status or, once the answer has begun, in the stream.
func (d daemon) Pull(ctx context.Context, reference string) error {
	name, tag, _ := strings.Cut(reference, ":")
	query := url.Values{"fromImage": {name}, "tag": {tag}}
	resp, err := socket.Post(ctx, socket.Transport(d.socket(), true), "/images/create?"+query.Encode(), "application/json", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(io.LimitReader(resp.Body, socket.MaxReply))
	for {
		var said struct{ Message, Error string }
		if err := dec.Decode(&said); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s: %w", resp.Status, err)
		}
		if text := said.Message + said.Error; text != "" {
			return errors.New(text)
		}
	}
}

// Remove is DELETE /images/{name} of the Docker Engine API.
func (d daemon) Remove(ctx context.Context, reference string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, "http://localhost/images/"+reference, nil)
	if err != nil {
		return err
	}
	resp, err := socket.Transport(d.socket(), true).RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotFound {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, socket.MaxReply))
		return fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return nil
}
