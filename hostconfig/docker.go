package hostconfig

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/splice"
)

const (
	dockerFolder = "/etc/docker"
	dockerJSON   = dockerFolder + "/daemon.json"
	dockerHosts  = dockerFolder + "/certs.d"
	hub          = "docker.io"
)

type docker struct {
	*planner
	json    string   // its configuration file
	args    []string // of the running one, else of the one that would be started
	running *process
}

func (p *planner) newDocker() *docker {
	d := &docker{planner: p, json: dockerJSON, running: runningDockerd(p.tree)}
	// Written at each start, after which flags, version and store may be others.
	p.tree.Watch("/run/docker.pid")
	p.tree.Watch("/run/docker.sock")
	d.args = p.commandLine(d.running, "docker.service", "/etc/default/docker", "/etc/sysconfig/docker")
	if name := flag(d.args, "--config-file"); path.IsAbs(name) {
		d.json = path.Clean(name)
	}
	return d
}

func (*docker) name() string       { return Docker }
func (*docker) folder() string     { return dockerFolder }
func (*docker) binary() string     { return "dockerd" }
func (*docker) packages() []string { return []string{"docker-ce", "docker.io", "moby-engine"} }
func (d *docker) runs() bool       { return d.running != nil }

// settings are the keys of daemon.json that decide what is right for us.
type settings struct {
	Mirrors  []string        `json:"registry-mirrors"`
	Insecure []string        `json:"insecure-registries"`
	Features map[string]bool `json:"features"`
	DataRoot string          `json:"data-root"`
}

// plan is settle for the Docker of the host, and word of those that are left alone.
func (d *docker) plan(ctx context.Context) []State {
	state := State{Engine: Docker, Present: d.present(d), Running: d.runs()}
	if state.Present {
		state.Version = d.version(ctx, d)
		d.upgraded(&state)
		d.settle(&state)
	} else {
		d.undo()
	}
	return append([]State{state}, append(d.snap(), d.rootless(state.Version)...)...)
}

// upgraded goes by the newer of what runs and what is installed. After an upgrade from
// 27 to 28 the mirror that the old one asks must have its hosts.toml before the new one
// starts; the old one does not mind that file.
func (d *docker) upgraded(state *State) {
	if d.live == nil || d.host.Versions[Docker] != "" {
		return
	}
	installed, running := state.Version, findVersion(d.live.version)
	if v := parseVersion(running); !v.unknown() && (installed == "" || v.atLeast(parseVersion(installed).major, parseVersion(installed).minor)) {
		state.Version = running
	}
	if installed != "" && running != "" && installed != running {
		state.note(fmt.Sprintf("dockerd %s is installed and %s still runs: it is to be restarted", installed, running))
	}
}

// settle writes hosts.toml files for Docker 28 and later, the first to read them,
// and registry-mirrors for what does not: earlier ones, and the graph-driver store.
//
// From 28 to 29.7.2 a loopback address in registry-mirrors without a hosts.toml for
// docker.io makes the containerd store skip the verification of TLS to Docker Hub (moby,
// daemon/hosts.go), so there the one is never written without the other.
func (d *docker) settle(state *State) {
	conf, usable := d.settings()
	version := parseVersion(state.Version)
	flags := mirrorsIn(d.args)
	readsHosts := version.unknown() || version.atLeast(28, 0)
	graph := d.graphStore(version, conf)
	wantsHub := slices.Contains(d.want.Registries, hub)
	wantsMirrors := wantsHub && (!readsHosts || version.unknown() || graph)
	hubFile := d.hostsPath(hub)
	d.describe(state, version, graph)

	if d.live != nil && d.live.store == containerdStore && parseVersion(d.live.version).atLeast(28, 0) {
		d.out.asks = append(d.out.asks, ask{engine: Docker, folder: dockerHosts})
	}

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
		state.note("dockerd is started with --registry-mirror, beside which the same key in " + d.json + " would keep it from starting; move the flag's value there and run again")
		wantsMirrors = false
	case wantsMirrors && !hubReady:
		state.note(d.json + " gets no registry-mirrors as long as " + hubFile + " cannot be written: without that file Docker 28 and later would stop verifying TLS to Docker Hub")
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
		d.setMirrors(state, needs)
	} else if slices.Contains(conf.Mirrors, d.want.Mirror) || d.journal.Find(d.json) != nil {
		d.unset(Docker, d.json, daemonFile, "this Docker reads hosts.toml instead of registry-mirrors", "")
	}
	needs := make(map[string]string)
	if d.planned(d.json) {
		needs[hubFile] = d.json
	}
	d.unsetHosts(Docker, []string{dockerHosts}, keep, needs)
}

// describe says what is in force.
func (d *docker) describe(state *State, v version, graph bool) {
	state.Config, state.Running = d.json, d.runs()
	switch {
	case d.live != nil && d.live.store != "":
		state.Store = d.live.store
	case !graph:
		state.Store = containerdStore
	case !v.unknown():
		state.Store = "graph driver"
	}
	switch {
	case v.unknown():
		state.Mirror = "hosts.toml and registry-mirrors"
	case !v.atLeast(28, 0):
		state.Mirror = "registry-mirrors, for Docker Hub only"
	case graph:
		state.Mirror = "registry-mirrors, for Docker Hub only; BuildKit hosts.toml"
	default:
		state.Mirror = "hosts.toml"
	}
	if v.atLeast(28, 0) || v.unknown() {
		state.Hosts = dockerHosts
	}
	d.others(state, d.json, "")
}

// setMirrors plans registry-mirrors, and a reload where the file is right and the
// running dockerd has not taken it: a run may have been killed between the two.
func (d *docker) setMirrors(state *State, needs string) {
	ok := d.set(edit{
		engine: Docker, path: d.json, kind: daemonFile, needs: needs, state: state,
		why: "Docker asks the first of registry-mirrors for what is on Docker Hub",
		add: func(base []byte) ([]byte, error) {
			file, err := splice.ReadDaemon(d.json, base, splice.Version{})
			if err != nil {
				return nil, err
			}
			return file.AddMirror(d.want.Mirror)
		},
		settled: func(now []byte) bool {
			file, err := splice.ReadDaemon(d.json, now, splice.Version{})
			return err == nil && len(file.Mirrors) > 0 && file.Mirrors[0] == d.want.Mirror
		},
	})
	if !ok || d.live == nil {
		return
	}
	if !d.planned(d.json) && !hasMirror(d.live.mirrors, d.want.Mirror) {
		state.note("the running dockerd has not taken " + d.json + " yet")
		d.out.reload = true
	}
	if limits := flagLimits(d.args); (d.planned(d.json) || d.out.reload) && len(limits) > 0 {
		state.note("the reload sets back to its default what dockerd is given as a flag: " + strings.Join(limits, ", ") + "; move it to " + d.json)
	}
}

// flagLimits are the flags that dockerd forgets at a reload (moby, daemon/reload.go).
func flagLimits(args []string) []string {
	var found []string
	for _, name := range []string{"--max-concurrent-downloads", "--max-concurrent-uploads", "--max-download-attempts"} {
		if flag(args, name) != "" {
			found = append(found, name)
		}
	}
	return found
}

// hasMirror looks for ours among those that dockerd tells of, each with a slash at
// its end.
func hasMirror(list []string, ours string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.TrimSuffix(s, "/") == ours })
}

// undo takes registry-mirrors away before the hosts.toml that makes it harmless.
func (d *docker) undo() {
	keep, needs := []string(nil), make(map[string]string)
	names := d.recorded(Docker, daemonFile)
	if !slices.Contains(names, d.json) {
		names = append(names, d.json)
	}
	for _, name := range names {
		if !d.unset(Docker, name, daemonFile, "taking our part out", "") {
			keep = []string{d.hostsPath(hub)}
		}
		if d.planned(name) {
			needs[d.hostsPath(hub)] = name
		}
	}
	d.unsetHosts(Docker, []string{dockerHosts}, keep, needs)
}

func (d *docker) hostsPath(registry string) string {
	return path.Join(registryFolder(d.tree, dockerHosts, registry), "hosts.toml")
}

// settings reads daemon.json; usable is false where it has to be left alone.
func (d *docker) settings() (conf settings, usable bool) {
	f, err := d.tree.Read(d.json)
	var file *splice.Daemon
	if err == nil {
		file, err = splice.ReadDaemon(d.json, f.Data, splice.Version{})
	}
	if err != nil {
		d.refuse(err)
		return conf, false
	}
	_ = file.Decode(&conf) // dockerd reports a value of another type
	return conf, true
}

// containerdStore is [info].store of a Docker whose images containerd keeps.
const containerdStore = "containerd"

// graphStore reports whether Docker keeps images the old way. Up to 28 it does
// unless told otherwise; from 29 on where it already has images of that kind. What
// the file says comes first: it holds from the next start on.
func (d *docker) graphStore(v version, conf settings) bool {
	if snapshotter, set := conf.Features["containerd-snapshotter"]; set {
		return !snapshotter
	}
	if d.live != nil && d.live.store != "" {
		return d.live.store != containerdStore
	}
	root := cmp.Or(flag(d.args, "--data-root", "-g"), conf.DataRoot, "/var/lib/docker")
	return !v.atLeast(29, 0) || d.tree.IsDir(root+"/image/overlay2")
}

// planHosts plans the hosts.toml of each registry. keep are the files wanted, and
// hubReady says whether docker.io's is among them.
func (d *docker) planHosts(state *State, conf settings, flags []string) (keep []string, hubReady bool) {
	for _, registry := range d.registries() {
		if insecure(registry, conf.Insecure) {
			state.note(fmt.Sprintf("%s is in insecure-registries, which a hosts.toml would overrule: it is left alone", registry))
			continue
		}
		m := splice.Hosts{URL: d.want.Mirror}
		if registry == hub {
			m.Mirrors = carried(slices.Concat(conf.Mirrors, flags), d.want.Mirror)
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
func carried(mirrors []string, ours string) []splice.Mirror {
	var list []splice.Mirror
	for _, text := range mirrors {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.User != nil || text == ours {
			continue
		}
		text = strings.TrimSuffix(text, "/")
		if !slices.ContainsFunc(list, func(m splice.Mirror) bool { return m.URL == text }) {
			list = append(list, splice.Mirror{URL: text})
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
