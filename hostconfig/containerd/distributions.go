package containerd

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/certsd"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/version"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// distribution is where a distribution of Kubernetes has the files of its containerd. It writes the
// config.toml anew at each start, with a config_path of its own, so that sidemirror only writes
// hosts.toml files.
type distribution struct{ name, folder, config, hosts string }

var distributions = []distribution{
	newDistribution("k3s", "/var/lib/rancher/k3s/agent/etc/containerd", "config.toml"),
	newDistribution("rke2", "/var/lib/rancher/rke2/agent/etc/containerd", "config.toml"),
	newDistribution("microk8s", "/var/snap/microk8s/current/args", "containerd.toml"),
}

func newDistribution(name, folder, config string) distribution {
	return distribution{name, folder, path.Join(folder, config), path.Join(folder, "certs.d")}
}

// inDistribution reports whether a file belongs to a distribution.
func inDistribution(file string) bool {
	return slices.ContainsFunc(distributions, func(d distribution) bool { return strings.HasPrefix(file, d.folder+"/") })
}

// bundled is the containerd of a distribution.
type bundled struct {
	*engine.Host
	distribution
}

func (bundled) Name() string { return engine.Containerd }

func (b bundled) Detect(context.Context) (engine.State, bool) {
	if !b.Tree.IsDir(b.folder) {
		return engine.State{}, false
	}
	s := engine.State{Engine: engine.Containerd, Home: b.name, Present: true, Hosts: b.hosts}
	noteSpegel(b.Host, &s)
	return s, true
}

func (b bundled) Plan(_ context.Context, s engine.State, want engine.Desired) engine.Plan {
	p := engine.Plan{State: s, Folders: append([]string{b.hosts}, b.revisions()...)}
	if !s.Present || !slices.Contains(want.Engines, engine.Containerd) {
		return p
	}
	p.State.Through = []engine.Kind{engine.HostsTOML}
	if conf, err := readConfig(b.Tree, b.config, version.Version{}); err == nil && conf.exists && conf.path == "" {
		p.State.Mirror = engine.Inactive
		p.State.Problem(problem.Problem{
			Code: "distribution-config-path", Path: b.config, Text: "sets no config_path, as old versions of " + b.name + " do not: CRI does not read hosts.toml files",
			Hint: "upgrade " + b.name + ", or set the mirror in its own configuration",
		})
	}
	hosts := certsd.Folder{Host: b.Host, Path: b.hosts}
	for _, registry := range want.Registries {
		hosts.Plan(&p, registry, want.Mirror, nil)
	}
	return p
}

// revisions returns the folders of the other revisions of a snap. A refresh copies the files of the
// one to a new one, and keeps the old one for "snap revert".
func (b bundled) revisions() (folders []string) {
	snap, rest, ok := strings.Cut(b.hosts, "/current/")
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

// k0s is the containerd of k0s, which sidemirror leaves alone.
type k0s struct{ *engine.Host }

const k0sFolder = "/etc/k0s/containerd.d"

func (k0s) Name() string { return engine.Containerd }

func (k k0s) Detect(context.Context) (engine.State, bool) {
	if !k.Tree.IsDir(k0sFolder) {
		return engine.State{}, false
	}
	s := engine.State{Engine: engine.Containerd, Home: "k0s", Present: true}
	s.Note(problem.Problem{
		Code: "containerd-k0s", Path: k0sFolder, Text: "k0s reads hosts.toml files only if a file in this folder sets config_path, which sidemirror leaves alone",
		Hint: "set config_path to " + hostsFolder + " there and restart k0s",
	})
	return s, true
}

func (k k0s) Plan(_ context.Context, s engine.State, _ engine.Desired) engine.Plan {
	return engine.Plan{State: s}
}
