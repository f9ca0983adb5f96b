package hostconfig

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/containersimage"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/journal"
	"github.com/sidemirror/sidemirror/hostconfig/live"
)

// Each engine has a row, files that are watched and in the journal, a probe, and an undo. An engine that
// is not probed says why.
func TestEveryEngineIsTreatedAlike(t *testing.T) {
	inFiles := func(config string) string { return "version = 2\n" + criV2 + "\nconfig_path = \"" + config + "\"\n" }
	bundled := func(name, config string) func(*fakeRunning) {
		return func(f *fakeRunning) { f.homes = map[string][]string{name: {"containerd", "--config", config}} }
	}
	for _, c := range []struct {
		engine, home string
		files        map[string]string
		start        func(f *fakeRunning)
		file         string // that gets the entry
		version      string
		daemon       bool
		noProbe      string // why it is not probed
	}{
		{engine: engine.Docker, files: map[string]string{"/etc/docker/": ""}, version: "28.5.2", daemon: true,
			start: func(f *fakeRunning) { f.off, f.store, f.version = false, "containerd", "28.5.2" }, file: hubHosts},
		{engine: engine.Containerd, files: map[string]string{containerdConfig: inFiles("/srv/hosts")}, version: "1.7.34", daemon: true,
			start: func(f *fakeRunning) { f.containerd = []string{"containerd"} }, file: "/srv/hosts/docker.io/hosts.toml"},
		{engine: engine.Containerd, home: "k3s", files: map[string]string{k3sFolder + "/config.toml": inFiles(k3sHosts)}, daemon: true,
			start: bundled("k3s", k3sFolder+"/config.toml"), file: k3sHosts + "/docker.io/hosts.toml"},
		{engine: engine.Containerd, home: "rke2", files: map[string]string{rke2Folder + "/config.toml": inFiles(rke2Folder + "/certs.d")}, daemon: true,
			start: bundled("rke2", rke2Folder+"/config.toml"), file: rke2Folder + "/certs.d/docker.io/hosts.toml"},
		{engine: engine.Containerd, home: "microk8s", files: map[string]string{"/var/snap/microk8s/current/args/containerd.toml": inFiles(microk8sHosts)}, daemon: true,
			start: bundled("microk8s", "/var/snap/microk8s/current/args/containerd.toml"), file: microk8sHosts + "/docker.io/hosts.toml"},
		{engine: engine.Containerd, home: "k0s", files: map[string]string{k0sConfig: k0sMain, "/etc/k0s/containerd.d/own.toml": inFiles(k0sHosts)}, daemon: true,
			start: bundled("k0s", k0sConfig), file: k0sHosts + "/docker.io/hosts.toml"},
		{engine: engine.Podman, files: map[string]string{"/usr/bin/podman": "#!/bin/sh\nexit 1\n"}, version: "4.3.1", file: containersimage.File},
		{engine: engine.Podman, files: map[string]string{"/usr/bin/buildah": "#!/bin/sh\nexit 1\n"}, version: "1.28.2", file: containersimage.File, noProbe: "it makes files in /etc/cni"},
		{engine: engine.Podman, files: map[string]string{"/usr/bin/skopeo": "#!/bin/sh\nexit 1\n"}, version: "1.9.3", file: containersimage.File},
		{engine: engine.CRIO, files: map[string]string{"/usr/bin/crio": ""}, version: "1.30.0", daemon: true,
			start: func(f *fakeRunning) { f.crio = true }, file: containersimage.File, noProbe: "it reads a drop-in at its start and at a reload only"},
		{engine: engine.BuildKit, files: map[string]string{"/usr/bin/buildkitd": ""}, version: "0.34.2", daemon: true,
			start: func(f *fakeRunning) { f.buildkit = []string{"buildkitd"} }, file: "/etc/buildkit/buildkitd.toml", noProbe: "it reads its file at its start only, and pulls for builds only"},
	} {
		t.Run(strings.TrimSpace(c.engine+" "+c.home+" "+c.version), func(t *testing.T) {
			h := host(t, c.files)
			for name, text := range c.files {
				if strings.HasPrefix(text, "#!") {
					if err := os.Chmod(h.path(name), 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			h.Versions = map[string]string{c.engine: c.version}
			fake := idle(h)
			fake.execute, fake.homeInfo = true, live.Info{Version: "v2.1.0"}
			if c.start != nil {
				c.start(fake)
			}
			before := h.snapshot(t)
			want := engine.Desired{Mirror: ourURL, Registries: []string{hub}, Engines: []string{c.engine}}

			plan := h.plan(t, want)
			if (len(plan.probes) == 1) != (c.noProbe == "") {
				t.Errorf("%d probes; it has none because %q", len(plan.probes), c.noProbe)
			}
			if !slices.Contains(plan.Watch, c.file) {
				t.Errorf("%s is not watched: %q", c.file, plan.Watch)
			}
			h.apply(t, want)
			contains(t, h.get(t, journal.Folder+"/journal.json"), c.file, c.engine)
			rows := 0
			for _, s := range h.plan(t, want).Engines {
				if s.Engine != c.engine || s.Home != c.home {
					continue
				}
				rows++
				if !s.Present || s.Running != c.daemon || s.Known == "" || s.Mirror != engine.Active || len(s.Through) != 1 || len(s.Files) != 1 {
					t.Errorf("%+v", s)
				}
			}
			if rows != 1 {
				t.Errorf("%d rows", rows)
			}
			h.revert(t)
			sameTree(t, before, h.snapshot(t))
		})
	}
}

// An image that is being built can get its engine later: the folder of its configuration is enough in a
// tree, and not on a running host, where it outlives an engine that was removed.
func TestAConfigurationFolderIsEnoughInATreeOnly(t *testing.T) {
	for folder, name := range map[string]string{
		"/etc/docker/": engine.Docker, "/etc/containerd/": engine.Containerd, "/etc/crio/": engine.CRIO, "/etc/buildkit/": engine.BuildKit,
	} {
		for _, runs := range []bool{false, true} {
			h := host(t, map[string]string{folder: ""})
			if runs {
				idle(h)
			}
			present := false
			for _, s := range h.plan(t, engine.Desired{Mirror: ourURL, Registries: []string{hub}, Engines: []string{name}}).Engines {
				present = present || s.Engine == name && s.Present
			}
			if present == runs {
				t.Errorf("%s on a running host (%v): present is %v", name, runs, present)
			}
		}
	}
}
