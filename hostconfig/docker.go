package hostconfig

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
)

const (
	dockerFolder = "/etc/docker"
	dockerJSON   = dockerFolder + "/daemon.json"
	dockerHosts  = dockerFolder + "/certs.d"
	hub          = "docker.io"
)

type docker struct{ *planner }

func (*docker) name() string       { return Docker }
func (*docker) folder() string     { return dockerFolder }
func (*docker) binary() string     { return "dockerd" }
func (*docker) packages() []string { return []string{"docker-ce", "docker.io", "moby-engine"} }

// settings are the keys of daemon.json that decide what is right for us.
type settings struct {
	Mirrors  []string        `json:"registry-mirrors"`
	Insecure []string        `json:"insecure-registries"`
	Features map[string]bool `json:"features"`
	DataRoot string          `json:"data-root"`
}

// plan writes hosts.toml files for Docker 28 and later, the first to read them,
// and registry-mirrors for what does not: earlier ones, and the graph-driver store.
//
// From 28 to 29.7.2 a loopback address in registry-mirrors without a hosts.toml for
// docker.io makes the containerd store skip the verification of TLS to Docker Hub (moby,
// daemon/hosts.go), so there the one is never written without the other.
func (d *docker) plan(state *State) {
	conf, usable := d.settings()
	version := parseVersion(state.Version)
	flags := d.flagMirrors()
	readsHosts := version.unknown() || version.atLeast(28, 0)
	wantsHub := slices.Contains(d.want.Registries, hub)
	wantsMirrors := wantsHub && (!readsHosts || version.unknown() || d.graphStore(version, conf))
	hubFile := d.hostsPath(hub)

	var keep []string
	hubReady := !readsHosts
	if readsHosts {
		keep, hubReady = d.planHosts(state, conf, flags)
	} else if others := without(d.want.Registries, hub); len(others) > 0 {
		state.note(fmt.Sprintf("Docker %s mirrors Docker Hub only; from %s pull as %s/<registry>/<repository>",
			state.Version, strings.Join(others, ", "), strings.TrimPrefix(d.want.Mirror, "http://")))
	}
	if version.unknown() {
		state.note("Docker's version is not known: both hosts.toml (read from 28 on) and registry-mirrors (before) are written, which is right either way")
	}
	switch {
	case len(flags) > 0:
		state.note("dockerd is started with --registry-mirror, beside which the same key in " + dockerJSON + " would keep it from starting; move the flag's value there and run again")
		wantsMirrors = false
	case wantsMirrors && !hubReady:
		state.note(dockerJSON + " gets no registry-mirrors as long as " + hubFile + " cannot be written: without that file Docker 28 and later would stop verifying TLS to Docker Hub")
		wantsMirrors = false
	}
	if !usable {
		return
	}
	if wantsMirrors {
		needs := ""
		if readsHosts {
			needs = hubFile
		}
		d.set(edit{
			engine: Docker, path: dockerJSON, kind: daemonFile, needs: needs,
			why:     "Docker asks the first of registry-mirrors for what is on Docker Hub",
			add:     func(base []byte) ([]byte, error) { return addMirror(dockerJSON, base, d.want.Mirror) },
			settled: func(now []byte) bool { return daemonSettled(dockerJSON, now, d.want.Mirror) },
		})
	} else if slices.Contains(conf.Mirrors, d.want.Mirror) || d.journal.find(dockerJSON) != nil {
		d.unset(Docker, dockerJSON, daemonFile, "this Docker reads hosts.toml instead of registry-mirrors", "")
	}
	needs := make(map[string]string)
	if d.planned(dockerJSON) {
		needs[hubFile] = dockerJSON
	}
	d.unsetHosts(Docker, []string{dockerHosts}, keep, needs)
}

// undo takes registry-mirrors away before the hosts.toml that makes it harmless.
func (d *docker) undo() {
	why := "taking our part out"
	if !d.unset(Docker, dockerJSON, daemonFile, why, "") {
		d.unsetHosts(Docker, []string{dockerHosts}, []string{d.hostsPath(hub)}, nil)
		return
	}
	needs := make(map[string]string)
	if d.planned(dockerJSON) {
		needs[d.hostsPath(hub)] = dockerJSON
	}
	d.unsetHosts(Docker, []string{dockerHosts}, nil, needs)
}

func (d *docker) hostsPath(registry string) string {
	return path.Join(registryFolder(d.tree, dockerHosts, registry), "hosts.toml")
}

// settings reads daemon.json; usable is false where it has to be left alone.
func (d *docker) settings() (conf settings, usable bool) {
	f, err := d.tree.read(dockerJSON)
	if err == nil {
		_, err = parseDaemonJSON(dockerJSON, f.data)
	}
	if err != nil {
		d.refuse(err)
		return conf, false
	}
	if f.exists() && len(strings.TrimSpace(string(f.data))) > 0 {
		// A key of another type than ours is dockerd's to complain about.
		_ = json.Unmarshal(f.data, &conf)
	}
	return conf, true
}

// graphStore reports whether Docker keeps images the old way. Up to 28 it does
// unless told otherwise; from 29 on where it already has images of that kind.
func (d *docker) graphStore(v version, conf settings) bool {
	if snapshotter, set := conf.Features["containerd-snapshotter"]; set {
		return !snapshotter
	}
	root := conf.DataRoot
	if root == "" {
		root = "/var/lib/docker"
	}
	return !v.atLeast(29, 0) || d.tree.isDir(root+"/image/overlay2")
}

// planHosts plans the hosts.toml of each registry. keep are the files wanted, and
// hubReady says whether docker.io's is among them.
func (d *docker) planHosts(state *State, conf settings, flags []string) (keep []string, hubReady bool) {
	for _, registry := range d.registries() {
		if insecure(registry, conf.Insecure) {
			state.note(fmt.Sprintf("%s is in insecure-registries, which a hosts.toml would overrule: it is left alone", registry))
			continue
		}
		m := mirror{url: d.want.Mirror}
		if registry == hub {
			m.others = carried(slices.Concat(conf.Mirrors, flags), d.want.Mirror)
		}
		name, ok := d.setHosts(Docker, state, dockerHosts, registry, m)
		if name != "" {
			keep = append(keep, name)
		}
		hubReady = hubReady || ok && registry == hub
	}
	return keep, hubReady
}

// carried are the user's mirrors that a hosts.toml for docker.io has to name,
// since it overrules them.
func carried(mirrors []string, ours string) []string {
	var list []string
	for _, text := range mirrors {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.User != nil || text == ours {
			continue
		}
		if text = strings.TrimSuffix(text, "/"); !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	return list
}

// insecure reports whether registry matches an entry of insecure-registries, a
// name or a network.
func insecure(registry string, list []string) bool {
	host, _, _ := strings.Cut(registry, ":")
	addr, addrErr := netip.ParseAddr(host)
	return slices.ContainsFunc(list, func(item string) bool {
		network, err := netip.ParsePrefix(item)
		return item == registry || err == nil && addrErr == nil && network.Contains(addr)
	})
}

func without(list []string, item string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == item })
}
