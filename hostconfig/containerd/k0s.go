package containerd

import (
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/hostconfig/version"
	"github.com/sidemirror/sidemirror/internal/problem"
)

const (
	k0sName = "k0s"

	// k0sDropIns is the folder whose files k0s merges into containerd's configuration. k0s watches it,
	// and restarts containerd when a file or a folder in it changes (k0s, pkg/component/worker/containerd).
	// The hosts.toml files must therefore not be below it.
	k0sDropIns = "/etc/k0s/containerd.d"
	k0sDropIn  = k0sDropIns + "/" + dropIn

	// k0sManaged is the first line of a containerd.toml that k0s writes. It merges the drop-ins into
	// such a file only.
	k0sManaged = "# k0s_managed=true"
)

// planK0s plans the drop-in that sets config_path, which k0s does not set. k0s restarts containerd
// when it is written, so that it is written only if a restart is allowed.
func (b *bundled) planK0s(p *engine.Plan, want engine.Desired, why string) {
	p.State.Mirror = engine.Inactive
	what := problem.Problem{
		Code: "containerd-config-path", Path: k0sDropIns, Text: "CRI does not read hosts.toml files: " + why,
		Hint: "sidemirror apply --restart-containerd (k0s restarts its containerd; containers keep running)",
	}
	section := splice.SectionV2
	switch v := b.configVersion(); {
	case !b.managed:
		what.Path = b.file
		what.Hint = "set config_path = \"" + b.folder() + "\" in this file, which k0s does not manage, and restart k0s"
	case v == 0:
		what.Hint = "start k0s once: the version of its containerd is not known yet"
	case want.RestartContainerd:
		if v > 2 {
			section = splice.SectionV3
		}
		what.Hint = "sidemirror apply"
		p.Edits = append(p.Edits, engine.Edit{
			Path: k0sDropIn, Entry: pathEntry{section: section, folder: b.folder(), version: v, fresh: true},
			Why: "CRI reads hosts.toml files only if config_path names their folder; k0s restarts its containerd for it",
		})
	}
	p.State.Problem(what)
}

// configVersion returns the version of the configuration that k0s has for its containerd; 0 if that
// is not known.
func (b *bundled) configVersion() int {
	switch {
	case b.conf.exists && b.conf.version > 0:
		return b.conf.version
	case b.version.AtLeast(2, 0):
		return 3
	case b.version.Known():
		return 2
	}
	return 0
}

// readK0s reads the configuration of k0s's containerd. k0s merges its drop-ins into a file below /run
// at each start, and containerd.toml imports that: the drop-ins themselves are there always.
func (b *bundled) readK0s() (config, error) {
	f, err := b.Tree.ReadTrusted(b.file)
	if err != nil {
		return config{}, err
	}
	first, _, _ := strings.Cut(string(f.Data), "\n")
	if b.managed = !f.Exists() || strings.TrimSpace(first) == k0sManaged; !b.managed {
		return readConfig(b.Tree, b.file, version.Version{})
	}
	conf := config{exists: f.Exists()}
	if conf.exists {
		if _, err := conf.add(b.file, f.Data, true); err != nil {
			return conf, err
		}
	}
	names, err := b.Tree.Glob(k0sDropIns + "/*.toml")
	if err != nil {
		return conf, err
	}
	for _, name := range names[:min(len(names), maxImports)] {
		f, err := b.Tree.ReadTrusted(name)
		if err != nil {
			return conf, err
		}
		if _, err := conf.add(name, f.Data, false); err != nil {
			return conf, err
		}
	}
	return conf, nil
}
