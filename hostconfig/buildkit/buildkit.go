// Package buildkit finds out how the BuildKit daemon of a host is configured, and plans what it needs to
// pull through sidemirror. The BuildKit in dockerd follows dockerd, and those that buildx starts in
// containers are their users'.
package buildkit

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/process"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/hostconfig/unitfile"
	"github.com/sidemirror/sidemirror/internal/problem"
)

const (
	folder        = "/etc/buildkit"
	defaultConfig = folder + "/buildkitd.toml"
	unit          = "buildkit.service"
)

// Query finds the host's buildkitd.
var Query = process.Query{
	Name: "buildkitd", Units: []string{unit}, Socket: "/run/buildkit/buildkitd.sock", SocketUnits: []string{"buildkit.socket"},
}

// Engines returns the BuildKit daemons that can be on a host.
func Engines(h *engine.Host) []engine.Engine { return []engine.Engine{&buildkit{Host: h}} }

type buildkit struct {
	*engine.Host
	daemon live.Daemon // nil if none runs
	config string
	err    error // why the configuration cannot be known
}

// Name is "buildkit".
func (*buildkit) Name() string { return engine.BuildKit }

// Detect looks for buildkitd and its configuration.
func (b *buildkit) Detect(ctx context.Context) (engine.State, bool) {
	s := engine.State{Engine: engine.BuildKit}
	b.Tree.Watch("/run/buildkit/buildkitd.sock")
	if b.Running != nil {
		b.daemon = b.Running.Daemon(ctx, engine.BuildKit)
		s.Running = b.daemon != nil
		s.Stopped = !s.Running && b.Running.Stopped(ctx, engine.BuildKit)
	}
	s.Present = s.Running || b.Installed(engine.BuildKit, "buildkitd", folder)
	if !s.Present {
		return s, false
	}
	s.Version = b.Version(ctx, engine.BuildKit, "buildkitd", "buildkit", "docker-buildkit")
	b.findConfig()
	s.Config, s.Known = b.config, engine.KnownByFiles
	if f, err := b.Tree.Read(b.config); err == nil {
		if p := engine.ManagedBy(b.config, f.Data); p != nil {
			s.Note(*p)
		}
	}
	return s, true
}

// findConfig finds the configuration file in the flags of the daemon, or of the one that would be
// started.
func (b *buildkit) findConfig() {
	b.config = defaultConfig
	var args []string
	if b.daemon != nil {
		args = b.daemon.Args()
	} else if service, err := unitfile.Read(b.Tree, unit); err != nil {
		b.err = err
	} else {
		args = service.Args
	}
	name := process.Flag(args, "--config")
	if name == "" || b.err != nil {
		return
	}
	if !path.IsAbs(name) || b.daemon == nil && unitfile.Unresolved(name) {
		b.err = &problem.Problem{
			Code: "buildkit-config-unresolved", Path: name, Text: "buildkitd's --config is not an absolute path that can be known from outside",
			Hint: "write the absolute path in " + unit,
		}
		return
	}
	b.config = path.Clean(name)
	if b.config != defaultConfig {
		b.err = b.Tree.Trusted(b.config)
	}
}

// Plan asks for sidemirror as the first mirror of each registry in buildkitd.toml.
func (b *buildkit) Plan(_ context.Context, s engine.State, want engine.Desired) engine.Plan {
	p := engine.Plan{State: s}
	if b.config != "" {
		p.Configs = []engine.Config{{Path: b.config, Kind: engine.BuildkitdTOML}}
	}
	if !s.Present || !slices.Contains(want.Engines, engine.BuildKit) {
		return p
	}
	if b.err != nil {
		p.Hold = problem.Coded(b.err, "buildkit-config-unreadable")
		return p
	}
	_, host, _ := strings.Cut(want.Mirror, "://")
	if strings.Contains(host, "[") {
		p.Refuse(b.config, &problem.Problem{
			Code: "buildkitd-toml-address", Path: b.config, Text: "cannot name " + host + ": it is not known whether buildkitd asks an IPv6 address by plain HTTP",
			Hint: "let sidemirror listen on 127.0.0.1 too",
		}, "buildkitd-toml-address")
		return p
	}
	p.Restart = want.RestartBuildKit
	if len(want.Registries) == 0 {
		return p
	}
	p.State.Through = []engine.Kind{engine.BuildkitdTOML}
	p.Edits = append(p.Edits, engine.Edit{
		Path: b.config, Entry: entry{splice.BuildKit{Mirror: host, Registries: want.Registries}}, Registries: want.Registries,
		Why: "BuildKit asks sidemirror first, and the registry itself if sidemirror does not answer",
	})
	if f, err := b.Tree.Read(b.config); err == nil {
		p.Unverified = splice.UnverifiedByBuildKit(b.config, f.Data)
	}
	b.addPending(&p)
	return p
}

// addPending notes that buildkitd, which reads its configuration at its start only, has not read the
// file that is in place.
func (b *buildkit) addPending(p *engine.Plan) {
	if b.daemon == nil {
		return
	}
	f, err := b.Tree.Read(b.config)
	started := b.daemon.Started()
	// The time of a start is known to a second. A time in the future is of a clock that was set since.
	if err != nil || !f.Exists() || started.IsZero() || !f.Attrs.Changed.After(started.Add(time.Second)) || f.Attrs.Changed.After(time.Now()) {
		return
	}
	p.Pending = &engine.Pending{
		Signal: live.Signal{Engine: engine.BuildKit, Verb: live.Restart}, File: b.config,
		Problem: problem.Problem{
			Code: "buildkit-restart-pending", Path: b.config, Text: "the running buildkitd was started before this file was changed, and pulls from the registries until it is restarted",
			Hint: "sidemirror apply --restart-buildkit (builds that run are lost)",
		},
	}
}

// entry is sidemirror's entry in a buildkitd.toml.
type entry struct{ splice.BuildKit }

// Kind is engine.BuildkitdTOML.
func (entry) Kind() engine.Kind { return engine.BuildkitdTOML }

// Merge returns the entry itself if the other one is the same.
func (e entry) Merge(other engine.Entry) (engine.Entry, bool) {
	o, ok := other.(entry)
	return e, ok && e.Mirror == o.Mirror && slices.Equal(e.Registries, o.Registries)
}

// daemon is a running buildkitd.
type daemon struct {
	process.Process
	units live.Units
}

// Connect returns the daemon that is a process.
func Connect(p process.Process, units live.Units) live.Daemon { return daemon{p, units} }

func (d daemon) Args() []string     { return d.Process.Args }
func (d daemon) Started() time.Time { return d.Process.Started }

// Info is empty: buildkitd does not report its mirrors.
func (d daemon) Info(context.Context) (live.Info, error) { return live.Info{}, nil }

// Signal restarts buildkitd through systemd: it reads its configuration at its start only.
func (d daemon) Signal(ctx context.Context, verb live.Verb) error {
	if verb != live.Restart {
		return fmt.Errorf("buildkitd is never told to %s", verb)
	}
	if d.Unit == "" {
		return &problem.Problem{Code: "buildkit-restart-failed", Text: "no unit of systemd runs buildkitd, so that it cannot be restarted", Hint: "restart it by hand"}
	}
	if err := d.units.Restart(ctx, d.Unit); err != nil {
		return &problem.Problem{Code: "buildkit-restart-failed", Text: "restarting buildkitd", Err: err, Hint: "see journalctl -u " + d.Unit + "; to undo: sidemirror revert"}
	}
	return nil
}
