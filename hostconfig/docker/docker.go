// Package docker finds out how Docker on a host is configured, and plans what it needs to pull
// through sidemirror.
package docker

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/certsd"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/process"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/hostconfig/unitfile"
	"github.com/sidemirror/sidemirror/hostconfig/version"
	"github.com/sidemirror/sidemirror/internal/problem"
)

const (
	folder      = "/etc/docker"
	daemonJSON  = folder + "/daemon.json"
	hostsFolder = folder + "/certs.d"
	hub         = "docker.io"

	// containerdStore is the store of a Docker whose images containerd keeps.
	containerdStore = "containerd"
)

// Engines returns the Dockers that can be on a host: its own, the snap, and those of users.
func Engines(h *engine.Host) []engine.Engine {
	return []engine.Engine{&docker{Host: h}, snap{h}, rootless{h}}
}

// docker is the host's own.
type docker struct {
	*engine.Host
	daemon   live.Daemon // nil if none runs
	info     live.Info   // of the daemon
	args     []string    // of the daemon, or of the one that would be started
	json     string      // the configuration file
	settings settings
	err      error           // why the configuration cannot be read
	version  version.Version // the newer one of what runs and what is installed
	oldest   version.Version // the older one
	graph    bool            // a graph driver stores the images
}

// Name is "docker".
func (*docker) Name() string { return engine.Docker }

// Detect looks for dockerd, its flags, its configuration and what it has in force.
func (d *docker) Detect(ctx context.Context) (engine.State, bool) {
	s := engine.State{Engine: engine.Docker}
	// Both are written at each start, after which flags, version and store may be others.
	d.Tree.Watch("/run/docker.pid")
	d.Tree.Watch("/run/docker.sock")
	if d.Running != nil {
		d.daemon = d.Running.Daemon(ctx, engine.Docker)
	}
	s.Running = d.daemon != nil
	s.Stopped = d.Running != nil && d.daemon == nil && d.Running.Stopped(ctx, engine.Docker)
	s.Present = s.Running || d.Installed(engine.Docker, "dockerd", folder)
	d.args, d.err = d.commandLine()
	d.json = daemonJSON
	if name := process.Flag(d.args, "--config-file"); name != "" && d.err == nil {
		d.json, d.err = configFile(name, d.daemon == nil)
	}
	if !s.Present {
		return s, true
	}
	d.findVersion(ctx, &s)
	if d.err == nil && d.json != daemonJSON {
		d.err = d.Tree.Trusted(d.json)
	}
	if d.err == nil {
		d.err = d.readSettings()
	}
	d.graph = d.usesGraphDriver()
	d.describe(&s)
	return s, true
}

// findVersion goes by the newer of what runs and what is installed. After an upgrade from 27 to 28
// the mirror that the old one asks must have its hosts.toml before the new one starts; the old one
// ignores that file.
func (d *docker) findVersion(ctx context.Context, s *engine.State) {
	s.Version = d.Version(ctx, engine.Docker, "dockerd", "docker-ce", "docker.io", "moby-engine")
	d.version = version.Parse(s.Version)
	d.oldest = d.version
	if d.daemon == nil {
		return
	}
	info, err := d.daemon.Info(ctx)
	if err != nil {
		return // what the files say is all that is known
	}
	d.info = info
	if _, given := d.Versions[engine.Docker]; given {
		return
	}
	installed, running := s.Version, version.Find(info.Version)
	switch v := version.Parse(running); {
	case !v.Known():
	case installed == "" || v.AtLeast(d.version.Major, d.version.Minor):
		s.Version, d.version = running, v
	default:
		d.oldest = v
	}
	if installed != "" && running != "" && installed != running {
		s.Note(problem.Problem{
			Code: "docker-restart-pending", Text: fmt.Sprintf("dockerd %s is installed, and %s is still running", installed, running),
			Hint: "systemctl restart docker",
		})
	}
}

// describe fills in what is known of the engine, whatever is wanted.
func (d *docker) describe(s *engine.State) {
	s.Config, s.Known = d.json, engine.KnownByFiles
	if d.info.Version != "" {
		s.Known = engine.KnownByEngine
	}
	switch {
	case d.info.Store != "":
		s.Store = d.info.Store
	case !d.graph:
		s.Store = containerdStore
	case d.version.Known():
		s.Store = "graph driver"
	}
	if d.readsHosts() {
		s.Hosts = hostsFolder
	}
	if f, err := d.Tree.Read(d.json); err == nil {
		if p := engine.ManagedBy(d.json, f.Data); p != nil {
			s.Note(*p)
		}
		if strings.Contains(string(f.Data), "nvidia-container-runtime") {
			s.Note(problem.Problem{
				Code: "docker-nvidia-ctk", Path: d.json, Text: `nvidia-ctk rewrites this file each time it runs, and loses "features"`,
				Hint: "",
			})
		}
	}
}

// readsHosts reports whether this dockerd reads hosts.toml files, or may.
func (d *docker) readsHosts() bool { return !d.version.Known() || d.version.AtLeast(28, 0) }

// Plan asks for hosts.toml files from Docker 28 on, the first to read them, and for
// registry-mirrors for what does not read them: earlier ones, and the graph-driver store.
//
// From 28 to 29.7.2 a loopback address in registry-mirrors without a hosts.toml for docker.io makes
// the containerd store skip the verification of TLS to Docker Hub (moby, daemon/hosts.go). The one is
// therefore never written without the other.
func (d *docker) Plan(ctx context.Context, s engine.State, want engine.Desired) engine.Plan {
	hosts := certsd.Folder{Host: d.Host, Path: hostsFolder, Library: d.library(ctx), Explicit: want.Explicit, CopyKeys: want.CopyClientKeys}
	hubFile := hosts.File(hub)
	p := engine.Plan{
		State: s, Folders: []string{hostsFolder}, Configs: []engine.Config{{Path: d.json, Kind: engine.DaemonJSON}},
		Guards: []engine.Guard{{File: hubFile, Danger: d.json, InForce: d.mirrorInForce(want.Mirror)}},
	}
	if !s.Present || !slices.Contains(want.Engines, engine.Docker) {
		return p
	}
	if d.err != nil {
		p.Hold = problem.Coded(d.err, "docker-config-unreadable")
		return p
	}
	if d.readsHosts() {
		p.State.Through = append(p.State.Through, engine.HostsTOML)
		d.planHosts(ctx, &p, hosts, want)
	}
	if d.wantsMirrors(&p, want) {
		p.State.Through = append(p.State.Through, engine.DaemonJSON)
		d.planMirrors(&p, hubFile, want)
	}
	if d.info.Store == containerdStore && version.Parse(d.info.Version).AtLeast(28, 0) {
		p.Probe = &engine.Probe{Folder: hostsFolder}
	}
	return p
}

// planHosts plans the hosts.toml of each registry.
func (d *docker) planHosts(ctx context.Context, p *engine.Plan, hosts certsd.Folder, want engine.Desired) {
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	trust := newTrust(d.Host, d.settings.Insecure)
	hosts.Any = want.Any && d.allowsDefault(p, trust)
	for _, registry := range want.Registries {
		verdict := trust.of(ctx, registry)
		if verdict == unknown && d.Journal.Find(hosts.File(registry)) != nil {
			verdict = secure // a run that could resolve the name found it so
		}
		switch verdict {
		case insecure:
			p.Skip(registry, problem.Problem{
				Code: "docker-registry-insecure", Path: d.json,
				Text: registry + " is one of insecure-registries, which a hosts.toml would override: sidemirror leaves it alone",
				Hint: "remove it from insecure-registries, or from sidemirror's registries",
			})
		case unknown:
			p.Skip(registry, problem.Problem{
				Code: "docker-registry-unresolved", Path: d.json,
				Text: registry + " may be in one of the networks of insecure-registries, but its name cannot be resolved from here: sidemirror leaves it alone",
				Hint: "run sidemirror apply, which can resolve names",
			})
		case secure:
			var mirrors []splice.Mirror
			if registry == hub {
				var err error
				if mirrors, err = d.carried(ctx, trust, hosts, want.Mirror); err != nil {
					p.Refuse(hosts.File(hub), err, "certificate-unusable")
					continue
				}
			}
			hosts.Plan(p, registry, want.Mirror, mirrors)
		}
	}
	if hosts.Any {
		hosts.PlanDefault(p, want.Mirror, want.Registries)
	}
}

// allowsDefault reports whether a hosts.toml of _default would override no setting, or notes why not.
// dockerd would ask insecure registries by HTTPS alone, except those at localhost and at loopback
// addresses (containerd, core/remotes/docker/config, ConfigureHosts). A host name at a loopback address
// is not insecure alone: 28.5.2 and 29.7.2 ask it by HTTPS, unless a network says otherwise.
func (d *docker) allowsDefault(p *engine.Plan, t trust) bool {
	item := t.overridden()
	if item == "" {
		return true
	}
	p.State.Note(problem.Problem{
		Code: "docker-default-insecure", Path: d.json,
		Text: "Docker treats " + item + " as insecure, which a hosts.toml for all registries would override: registries that sidemirror's configuration does not name are not mirrored",
		Hint: "name the registries that sidemirror should mirror in its configuration",
	})
	return false
}

// library returns the version of containerd's library in the oldest program that reads Docker's
// hosts.toml files. nerdctl 2.2 has containerd 2.2.
func (d *docker) library(ctx context.Context) splice.Version {
	oldest := d.oldest
	switch {
	case oldest.AtLeast(29, 1):
		oldest = version.Version{Major: 2, Minor: 2}
	case oldest.AtLeast(29, 0):
		oldest = version.Version{Major: 2, Minor: 1}
	default:
		oldest = version.Version{Major: 2, Minor: 0}
	}
	return certsd.OldestReader(ctx, d.Host, oldest)
}

// wantsMirrors reports whether this Docker needs registry-mirrors, and notes what it cannot reach
// that way.
func (d *docker) wantsMirrors(p *engine.Plan, want engine.Desired) bool {
	if !d.readsHosts() {
		if others := without(want.Registries, hub); len(others) > 0 {
			p.Skipped = append(p.Skipped, others...)
			p.State.HubOnly = true
			p.State.Note(problem.Problem{
				Code: "docker-mirrors-hub-only",
				Text: fmt.Sprintf("Docker %s can use a mirror for Docker Hub only", p.State.Version),
				Hint: engine.OtherRegistries(want.Mirror),
			})
		}
	}
	if others := without(want.Registries, hub); d.graph && d.version.Known() && d.readsHosts() && len(others) > 0 {
		p.Skipped = append(p.Skipped, others...)
		p.State.HubOnly = true
		p.State.Note(problem.Problem{
			Code: "docker-graph-driver", Text: "with a graph driver docker pull can use a mirror for Docker Hub only; builds use it for all registries",
			Hint: engine.OtherRegistries(want.Mirror) + ", or switch to the containerd image store",
		})
	}
	if !d.version.Known() {
		p.State.Note(problem.Problem{
			Code: "docker-version-unknown",
			Text: "Docker's version is not known: both hosts.toml (read from 28 on) and registry-mirrors (read before) are written",
			Hint: "",
		})
	}
	if !slices.Contains(want.Registries, hub) || d.readsHosts() && d.version.Known() && !d.graph {
		return false
	}
	if len(process.Flags(d.args, mirrorFlag)) > 0 {
		p.Skip(hub, problem.Problem{
			Code: "docker-mirror-flag", Path: d.json,
			Text: "dockerd is started with --registry-mirror and would not start with the same key in this file",
			Hint: "move the flag's value to registry-mirrors in this file",
		})
		return false
	}
	return true
}

// planMirrors plans registry-mirrors.
func (d *docker) planMirrors(p *engine.Plan, hubFile string, want engine.Desired) {
	edit := engine.Edit{
		Path: d.json, Entry: mirrorEntry{url: want.Mirror, version: d.version}, Registries: []string{hub},
		Why: "Docker asks the first of registry-mirrors for what is on Docker Hub",
	}
	if d.readsHosts() {
		edit.Needs = hubFile
	}
	if limits := flagLimits(d.args); d.daemon != nil && len(limits) > 0 {
		edit.Warning = &problem.Problem{
			Code: "docker-reload-resets-flags", Text: "the reload resets what dockerd is given by flag: " + strings.Join(limits, ", "),
			Hint: "move these settings to " + d.json,
		}
	}
	p.Edits = append(p.Edits, edit)
	if d.info.Version == "" && d.info.Store == "" || hasMirror(d.info.Mirrors, want.Mirror) {
		return
	}
	p.Pending = &engine.Pending{
		Signal: live.Signal{Engine: engine.Docker, Verb: live.Reload}, File: d.json,
		Problem: problem.Problem{Code: "docker-reload-pending", Path: d.json, Text: "the running dockerd has not taken this file yet", Hint: "sidemirror apply"},
	}
}

// flagLimits returns the flags whose values dockerd forgets at a reload (moby, daemon/reload.go).
func flagLimits(args []string) []string {
	var found []string
	for _, name := range []string{"--max-concurrent-downloads", "--max-concurrent-uploads", "--max-download-attempts"} {
		if process.Flag(args, name) != "" {
			found = append(found, name)
		}
	}
	return found
}

// mirrorInForce reports whether the running dockerd asks sidemirror because of registry-mirrors, at an
// address that is wanted now or that the journal knows.
func (d *docker) mirrorInForce(mirror string) bool {
	urls := []string{mirror}
	if e := d.Journal.Find(d.json); e != nil {
		urls = append(urls, e.URL)
	}
	return slices.ContainsFunc(d.info.Mirrors, func(m string) bool {
		return slices.ContainsFunc(urls, func(url string) bool { return url != "" && splice.SameURL(m, url) })
	})
}

// hasMirror looks for a mirror among those that dockerd reports.
func hasMirror(list []string, mirror string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return splice.SameURL(s, mirror) })
}

func without(list []string, item string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == item })
}

// configFile checks the path of a --config-file, which comes from a unit if fromUnit is true.
func configFile(name string, fromUnit bool) (string, error) {
	if !path.IsAbs(name) || fromUnit && unitfile.Unresolved(name) {
		return daemonJSON, &problem.Problem{
			Code: "docker-config-unresolved", Path: name, Text: "dockerd's --config-file is not an absolute path that can be known from outside",
			Hint: "write the absolute path in docker.service",
		}
	}
	return path.Clean(name), nil
}
