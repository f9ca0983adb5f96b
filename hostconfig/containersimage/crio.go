package containersimage

import (
	"context"
	"fmt"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/process"
	"github.com/sidemirror/sidemirror/hostconfig/socket"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// Query finds the host's CRI-O.
var Query = process.Query{Name: "crio", Units: []string{"crio.service"}, Socket: "/run/crio/crio.sock"}

// crioFolder is where CRI-O has its own configuration.
const crioFolder = "/etc/crio"

// crio is CRI-O, a daemon, which reads the files at its start and at a reload.
type crio struct{ *engine.Host }

// Name is "cri-o".
func (*crio) Name() string { return engine.CRIO }

// Detect looks for the program and its daemon.
func (c *crio) Detect(ctx context.Context) (engine.State, bool) {
	s := engine.State{Engine: engine.CRIO, Config: folder + "/registries.conf"}
	c.Tree.Watch("/run/crio/crio.sock")
	if c.Running != nil {
		s.Running = c.Running.Daemon(ctx, engine.CRIO) != nil
		s.Stopped = !s.Running && c.Running.Stopped(ctx, engine.CRIO)
	}
	s.Present = s.Running || c.Installed(engine.CRIO, crioTool.name, crioFolder)
	if !s.Present {
		return s, false
	}
	s.Known = engine.KnownByFiles
	s.Version = c.Version(ctx, engine.CRIO, crioTool.name, "cri-o")
	return s, true
}

// Plan asks for the drop-in that podman reads too.
func (c *crio) Plan(ctx context.Context, s engine.State, want engine.Desired) engine.Plan {
	return plan(ctx, c.Host, s, want)
}

// daemon is a running CRI-O.
type daemon struct {
	process.Process
	units live.Units
}

// Connect returns the daemon that is a process.
func Connect(p process.Process, units live.Units) live.Daemon { return daemon{p, units} }

func (d daemon) Args() []string     { return d.Process.Args }
func (d daemon) Started() time.Time { return d.Process.Started }

// Info is empty: CRI-O does not report its mirrors.
func (d daemon) Info(context.Context) (live.Info, error) { return live.Info{}, nil }

// Signal makes CRI-O read the files again.
func (d daemon) Signal(ctx context.Context, verb live.Verb) error {
	if verb != live.Reload {
		return fmt.Errorf("CRI-O is never told to %s", verb)
	}
	if err := d.Reload(ctx, d.units.Reload); err != nil {
		return &problem.Problem{Code: "crio-reload-failed", Text: "reloading CRI-O", Err: err, Hint: "systemctl reload crio; see journalctl -u crio"}
	}
	return nil
}

// Pull is PullImage of the Kubernetes container runtime interface.
func (d daemon) Pull(ctx context.Context, reference string) error {
	return socket.PullImage(ctx, Query.Socket, reference)
}

// Remove is RemoveImage of the Kubernetes container runtime interface.
func (d daemon) Remove(ctx context.Context, reference string) error {
	return socket.RemoveImage(ctx, Query.Socket, reference)
}
