package containerd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/process"
	"github.com/sidemirror/sidemirror/hostconfig/socket"
	"github.com/sidemirror/sidemirror/hostconfig/version"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// Query finds the host's own containerd, and not one that dockerd or a distribution of Kubernetes
// starts for itself.
var Query = process.Query{
	Name: "containerd", Units: []string{unit}, Socket: defaultSocket,
	Accept: func(p process.Process) bool {
		config := process.Flag(p.Args, "--config", "-c")
		return ownerOf(p) == "" && !strings.Contains(config, "/docker/")
	},
}

const (
	unit          = "containerd.service"
	defaultSocket = "/run/containerd/containerd.sock"
	infoLimit     = 5 * time.Second
)

// daemon is a running containerd.
type daemon struct {
	process.Process
	units live.Units
	tree  *hostfs.Host
}

// Connect returns the daemon that is a process of the host.
func Connect(tree *hostfs.Host, p process.Process, units live.Units) live.Daemon {
	return daemon{p, units, tree}
}

func (d daemon) Args() []string     { return d.Process.Args }
func (d daemon) Started() time.Time { return d.Process.Started }

// socket is where containerd listens: by its flag, or else by its configuration.
func (d daemon) socket() string {
	if name := process.Flag(d.Process.Args, "--address", "-a"); name != "" {
		return name
	}
	name := cmp.Or(process.Flag(d.Process.Args, "--config", "-c"), configTOML)
	if !path.IsAbs(name) {
		return defaultSocket
	}
	conf, err := readConfig(d.tree, name, version.Version{})
	if err != nil {
		return defaultSocket
	}
	return cmp.Or(conf.address, defaultSocket)
}

// Info asks containerd for its version, and its introspection service for the config_path in force,
// which the image plugin of CRI exports from 2.4 on.
func (d daemon) Info(ctx context.Context) (live.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, infoLimit)
	defer cancel()
	filter := socket.Field(1, []byte(`type==io.containerd.cri.v1,id==images`)) // PluginsRequest.filters
	reply, err := socket.Call(ctx, socket.Transport(d.socket(), false), "/containerd.services.introspection.v1.Introspection/Plugins", filter)
	if err != nil {
		return live.Info{}, fmt.Errorf("asking containerd for its configuration: %w", err)
	}
	info := readPlugins(reply)
	if reply, err = socket.Call(ctx, socket.Transport(d.socket(), false), "/containerd.services.version.v1.Version/Version", nil); err != nil {
		return live.Info{}, fmt.Errorf("asking containerd for its version: %w", err)
	}
	socket.Fields(reply, func(number uint64, value []byte) {
		if number == 1 { // VersionResponse.version
			info.Version = string(value)
		}
	})
	return info, nil
}

// readPlugins reads a PluginsResponse: plugins (1), of which the one of a type (1) and id (2) has
// exports (5), a map of key (1) and value (2).
func readPlugins(reply []byte) (info live.Info) {
	socket.Fields(reply, func(number uint64, plugin []byte) {
		var kind, id, configPath string
		known := false
		socket.Fields(plugin, func(field uint64, value []byte) {
			switch {
			case number == 1 && field == 1:
				kind = string(value)
			case number == 1 && field == 2:
				id = string(value)
			case number == 1 && field == 5:
				var key, text string
				socket.Fields(value, func(part uint64, value []byte) {
					switch part {
					case 1:
						key = string(value)
					case 2:
						text = string(value)
					}
				})
				if key == "RegistryConfigPath" {
					configPath, known = text, true
				}
			}
		})
		if kind == "io.containerd.cri.v1" && id == "images" && known {
			info.ConfigPath, info.KnowsConfigPath = configPath, true
		}
	})
	return info
}

// Signal restarts containerd through systemd. containerd dies of SIGHUP, so that it is never sent.
func (d daemon) Signal(ctx context.Context, verb live.Verb) error {
	if verb != live.Restart {
		return fmt.Errorf("containerd is never told to %s", verb)
	}
	if !d.tree.IsDir("/run/systemd/system") { // sd_booted(3)
		return &problem.Problem{Code: "containerd-restart-failed", Text: "systemd does not run here, so that containerd cannot be restarted", Hint: "restart it by hand"}
	}
	name := cmp.Or(d.Unit, unit)
	if err := d.units.Restart(ctx, name); err != nil {
		return &problem.Problem{
			Code: "containerd-restart-failed", Text: "restarting containerd", Err: err, Hint: "see journalctl -u " + name + "; to undo: sidemirror revert",
		}
	}
	return nil
}

// Pull is PullImage of the Kubernetes container runtime interface. A containerd that was just
// restarted listens before its CRI service is ready.
func (d daemon) Pull(ctx context.Context, reference string) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		err := socket.PullImage(ctx, d.socket(), reference)
		var status *socket.Status
		switch {
		case !errors.As(err, &status):
			return err
		case status.Code == socket.Unimplemented:
			return fmt.Errorf("containerd's CRI service does not run: %w", err)
		case status.Code != socket.Unavailable && !strings.Contains(status.Text, "server is not initialized yet"):
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// Remove is RemoveImage of the Kubernetes container runtime interface.
func (d daemon) Remove(ctx context.Context, reference string) error {
	return socket.RemoveImage(ctx, d.socket(), reference)
}
