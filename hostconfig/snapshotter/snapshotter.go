// Package snapshotter reports the snapshotters of a host that fetch layers themselves, lazily: SOCI,
// stargz and nydus. They have mirror settings of their own and read no hosts.toml files of containerd.
// sidemirror changes none of them.
package snapshotter

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// lazy is a snapshotter with a list of mirrors for each registry.
type lazy struct{ name, program, config, unit string }

var lazies = []lazy{
	{"SOCI", "soci-snapshotter-grpc", "/etc/soci-snapshotter-grpc/config.toml", "soci-snapshotter"},
	{"stargz", "containerd-stargz-grpc", "/etc/containerd-stargz-grpc/config.toml", "stargz-snapshotter"},
}

const (
	nydusProgram = "containerd-nydus-grpc"
	nydusConfig  = "/etc/nydus/config.toml"
	hub          = "docker.io"
)

// settings are what matters of the snapshotters' configurations: mirrors of SOCI and stargz
// (service/resolver), and the folder of nydus (config, RemoteConfig).
type settings struct {
	Resolver struct {
		Host map[string]struct {
			Mirrors []struct {
				Host string `toml:"host"`
			} `toml:"mirrors"`
		} `toml:"host"`
	} `toml:"resolver"`
	Remote struct {
		Mirrors struct {
			Dir string `toml:"dir"`
		} `toml:"mirrors_config"`
	} `toml:"remote"`
}

// Report adds to a state what the host's snapshotters do next to containerd. mirror is sidemirror's
// URL, and folders are those in which it has hosts.toml files.
func Report(h *engine.Host, s *engine.State, mirror string, folders []string) {
	_, address, _ := strings.Cut(mirror, "://")
	for _, l := range lazies {
		if h.Program(l.program) == "" && !h.Tree.IsFile(l.config) {
			continue
		}
		if set, ok := read(h, s, l.name, l.config); ok {
			l.report(s, set, address)
		}
	}
	if h.Program(nydusProgram) == "" && !h.Tree.IsFile(nydusConfig) {
		return
	}
	if set, ok := read(h, s, "nydus", nydusConfig); ok {
		reportNydus(s, set.Remote.Mirrors.Dir, folders)
	}
}

// read reads a configuration. A file that does not exist has no settings.
func read(h *engine.Host, s *engine.State, name, file string) (set settings, ok bool) {
	f, err := h.Tree.ReadTrusted(file)
	if err == nil {
		err = toml.Unmarshal(f.Data, &set)
	}
	if err != nil {
		s.Note(problem.Problem{Code: "snapshotter-config-unreadable", Path: file, Text: "the configuration of the " + name + " snapshotter cannot be read", Err: err})
		return set, false
	}
	return set, true
}

// report says which layers go through sidemirror. The snapshotter asks a mirror for a blob without
// saying of which registry, so that sidemirror can serve those of Docker Hub only.
func (l lazy) report(s *engine.State, set settings, address string) {
	through := false
	for _, registry := range slices.Sorted(maps.Keys(set.Resolver.Host)) {
		for _, m := range set.Resolver.Host[registry].Mirrors {
			if m.Host != address {
				continue
			}
			if registry == hub {
				through = true
				continue
			}
			s.Problem(problem.Problem{
				Code: "snapshotter-mirror-wrong", Path: l.config,
				Text: fmt.Sprintf("sidemirror is a mirror of %s for the %s snapshotter, which does not say which registry it wants: sidemirror takes its requests for those of Docker Hub", registry, l.name),
				Hint: fmt.Sprintf("remove that mirror of %s and restart %s", registry, l.unit),
			})
		}
	}
	text := fmt.Sprintf("the %s snapshotter fetches layers lazily and reads no hosts.toml files: ", l.name)
	if through {
		s.Note(problem.Problem{Code: "snapshotter-mirrored", Path: l.config, Text: text + "by this file those of Docker Hub come through sidemirror, and others from their registries"})
		return
	}
	s.Note(problem.Problem{
		Code: "snapshotter-direct", Path: l.config, Text: text + "these layers come from the registries",
		Hint: fmt.Sprintf("for Docker Hub add [[resolver.host.%q.mirrors]] with host = %q and insecure = true, and restart %s", hub, address, l.unit),
	})
}

// reportNydus reports a folder of mirrors that nydus shares with containerd. Nydus takes the first
// host of a file for the registry itself, without saying which one it wants, and never leaves it.
func reportNydus(s *engine.State, dir string, folders []string) {
	if dir != "" && slices.Contains(folders, path.Clean(dir)) {
		s.Problem(problem.Problem{
			Code: "snapshotter-folder-shared", Path: nydusConfig,
			Text: fmt.Sprintf("the nydus snapshotter takes the mirrors of %s, where sidemirror has its entries, without saying which registry it wants: its pulls from registries other than Docker Hub fail", dir),
			Hint: "set dir in [remote.mirrors_config] to a folder of its own, such as /etc/nydus/certs.d, and restart nydus-snapshotter",
		})
		return
	}
	s.Note(problem.Problem{
		Code: "snapshotter-direct", Path: nydusConfig, Text: "the nydus snapshotter fetches layers lazily, by mirrors of its own: these layers do not come through sidemirror",
	})
}
