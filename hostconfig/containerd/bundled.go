package containerd

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/certsd"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/hostconfig/version"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// bundled is the containerd of a distribution. The distribution writes config.toml anew at each
// start, with a config_path of its own, so that sidemirror only writes hosts.toml files.
type bundled struct {
	*engine.Host
	distribution
	daemon  live.Daemon // nil if none runs
	file    string      // its configuration file
	conf    config
	err     error // why conf cannot be read
	version version.Version
	managed bool // of k0s: it writes the configuration file
}

// Name is "containerd".
func (*bundled) Name() string { return engine.Containerd }

// Detect looks for the distribution's containerd, its configuration, and what it has in force.
func (b *bundled) Detect(ctx context.Context) (engine.State, bool) {
	b.Tree.Watch(b.socket) // made anew at each start
	s := engine.State{Engine: engine.Containerd, Home: b.name}
	if b.Running != nil {
		b.daemon = b.Running.Daemon(ctx, b.name)
	}
	b.file = b.configFile(b.Host, b.daemon)
	s.Running = b.daemon != nil
	if s.Present = s.Running || b.present(b.Host); !s.Present {
		return s, false
	}
	s.Stopped = b.Running != nil && !s.Running && b.Running.Stopped(ctx, b.name)
	if b.name == k0sName {
		b.conf, b.err = b.readK0s()
	} else {
		b.conf, b.err = readConfig(b.Tree, b.file, version.Version{})
	}
	if b.conf.exists {
		s.Config = b.file
	}
	s.Known = engine.KnownByFiles
	b.ask(ctx, &s)
	if b.err == nil {
		b.err = b.Tree.Trusted(b.folder())
	}
	s.Hosts = b.folder()
	noteSpegel(b.Host, &s)
	return s, true
}

// ask asks the running containerd for its version and its config_path.
func (b *bundled) ask(ctx context.Context, s *engine.State) {
	if b.daemon == nil {
		return
	}
	info, err := b.daemon.Info(ctx)
	if err != nil {
		return // what the files say is all that is known
	}
	s.Version = version.Find(info.Version)
	b.version = version.Parse(s.Version)
	if info.KnowsConfigPath {
		b.conf.path, s.Known = info.ConfigPath, engine.KnownByEngine
		if b.conf.path == builtIn {
			b.conf.path = ""
		}
	}
}

// folder returns the folder in which CRI looks for hosts.toml files.
func (b *bundled) folder() string {
	if roots := b.conf.roots(); len(roots) > 0 {
		return roots[0]
	}
	return path.Join(path.Dir(b.file), b.hosts)
}

// Plan asks for hosts.toml files, which need no restart.
func (b *bundled) Plan(_ context.Context, s engine.State, want engine.Desired) engine.Plan {
	p := engine.Plan{State: s, Folders: append([]string{b.folder()}, b.revisions()...)}
	if b.name == k0sName {
		p.Configs = []engine.Config{{Path: k0sDropIn, Kind: engine.ConfigTOML}}
	}
	if !s.Present || !slices.Contains(want.Engines, engine.Containerd) {
		return p
	}
	if b.err != nil {
		p.Hold = problem.Coded(b.err, "containerd-config-unreadable")
		return p
	}
	p.State.Through, p.Retain = []engine.Kind{engine.HostsTOML}, []engine.Kind{engine.ConfigTOML}
	hosts := certsd.Folder{Host: b.Host, Path: b.folder(), Library: splice.Version(b.version), Writer: b.name, Any: want.Any,
		Later: b.conf.roots(), Explicit: want.Explicit, CopyKeys: want.CopyClientKeys}
	for _, registry := range want.Registries {
		hosts.Plan(&p, registry, want.Mirror, nil)
	}
	if want.Any {
		hosts.PlanDefault(&p, want.Mirror, want.Registries)
	}
	b.planPath(&p, want)
	return p
}

// planPath reports whether CRI looks for hosts.toml files. A configuration that does not exist yet
// gets the distribution's config_path at its first start.
func (b *bundled) planPath(p *engine.Plan, want engine.Desired) {
	active, why := b.conf.active(b.version)
	switch {
	case b.conf.disabled:
		active, why = false, "CRI is off"
	case len(b.conf.conflicts) > 0:
		active, why = false, "next to "+b.conf.conflicts[0].Name+" containerd takes no config_path"
	case !b.conf.exists && b.name != k0sName:
		active = true
	}
	switch {
	case active && b.daemon != nil:
		p.Probe = &engine.Probe{Folder: b.folder()}
	case active:
	case b.name == k0sName:
		b.planK0s(p, want, why)
	default:
		p.State.Mirror = engine.Inactive
		p.State.Problem(problem.Problem{
			Code: "distribution-config-path", Path: b.file, Text: "CRI does not read hosts.toml files: " + why + ", as with old versions of " + b.name,
			Hint: "upgrade " + b.name + ", or set the mirror in its own configuration",
		})
	}
}

// revisions returns the folders of the other revisions of a snap. A refresh copies the files of the
// one to a new one, and retains the old one for "snap revert".
func (b *bundled) revisions() (folders []string) {
	snap, rest, ok := strings.Cut(b.folder(), "/current/")
	if !ok {
		return nil
	}
	list, err := b.Tree.Names(snap)
	if err != nil {
		return nil // nothing is planned there
	}
	for _, item := range list {
		if item.IsDir() {
			folders = append(folders, path.Join(snap, item.Name(), rest))
		}
	}
	return folders
}

// noteSpegel reports Spegel, which empties the folder of hosts.toml files.
func noteSpegel(h *engine.Host, s *engine.State) {
	if s.Hosts != "" && h.Tree.IsDir(path.Join(s.Hosts, "_backup")) {
		s.Problem(problem.Problem{
			Code: "spegel", Path: path.Join(s.Hosts, "_backup"), Text: "is Spegel's, which moves away what is in that folder each time it starts",
			Hint: "run either Spegel or sidemirror",
		})
	}
}
