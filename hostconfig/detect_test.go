package hostconfig

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func merge(all ...map[string]string) map[string]string {
	out := make(map[string]string)
	for _, files := range all {
		maps.Copy(out, files)
	}
	return out
}

func TestContainerd28ConfigOfTheRunningProcessCounts(t *testing.T) {
	const text = "version = 2\n" + criV2 + "\nconfig_path = \"/srv/hosts\"\n"
	for name, files := range map[string]map[string]string{
		"process":            proc(77, "containerd", 0, "/usr/bin/containerd", "--config", "/etc/mine.toml"),
		"process, short":     proc(77, "containerd", 0, "/usr/bin/containerd", "-c=/etc/mine.toml"),
		"unit":               {"/lib/systemd/system/containerd.service": "[Service]\nExecStart=/usr/bin/containerd --config /etc/mine.toml\n"},
		"not dockerd's own":  merge(proc(70, "containerd", 0, "containerd", "--config", "/var/run/docker/containerd/containerd.toml"), proc(77, "containerd", 0, "containerd", "--config", "/etc/mine.toml")),
		"not k3s's":          merge(proc(70, "containerd", 0, "containerd", "-c", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"), proc(77, "containerd", 0, "containerd", "--config", "/etc/mine.toml")),
		"not a container's":  merge(map[string]string{"/proc/70/status": "Name:\tcontainerd\nPPid:\t1\nUid:\t0\t0\t0\t0\nNSpid:\t70\t9\n", "/proc/70/cmdline": "containerd\x00--config\x00/other\x00"}, proc(77, "containerd", 0, "containerd", "--config", "/etc/mine.toml")),
		"not some user's":    merge(proc(70, "containerd", 1000, "containerd", "--config", "/other"), proc(77, "containerd", 0, "containerd", "--config", "/etc/mine.toml")),
		"not one by hand":    merge(map[string]string{"/proc/70/status": "Name:\tcontainerd\nPPid:\t55\nUid:\t0\t0\t0\t0\n", "/proc/70/cmdline": "containerd\x00--config\x00/other\x00"}, proc(77, "containerd", 0, "containerd", "--config", "/etc/mine.toml")),
		"process gone again": {"/proc/70/": "", "/proc/self": "", "/lib/systemd/system/containerd.service": "# ExecStart=containerd --config /other\nExecStart=containerd --config /etc/mine.toml"},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t, merge(files, map[string]string{"/etc/mine.toml": text, containerdConfig: "version = 2\n"}))
			plan := h.plan(t, containerdOnly("r.example"))
			if state := plan.Engines[1]; state.Config != "/etc/mine.toml" || state.Hosts != "/srv/hosts" || state.Mirror != "hosts.toml" {
				t.Errorf("%+v", state)
			}
			if len(plan.Changes) != 1 || plan.Changes[0].Path != "/srv/hosts/r.example/hosts.toml" {
				t.Errorf("%+v", plan.Changes)
			}
		})
	}
}

// To ask one of these for its configuration would be to start Docker by its socket.
func TestDockerThatOnlySaysSomethingDoesNotRun(t *testing.T) {
	for _, args := range [][]string{{"--version"}, {"-v"}, {"--validate", "--config-file", "/x.json"}, {"--help"}, {}} {
		h := host(t, proc(9, "dockerd", 0, append([]string{"/usr/bin/dockerd"}, args...)...))
		plan := h.plan(t, Desired{Mirror: ourURL, Registries: []string{hub}, Engines: []string{Docker}})
		if state := plan.Engines[0]; state.Running != (len(args) == 0) {
			t.Errorf("dockerd %q: %+v", args, state)
		}
	}
}

// Up to 1.7 a file that is imported takes the whole of CRI's section away.
func TestContainerd20AnImportHidesTheConfigPathBeforeIt(t *testing.T) {
	for version, inactive := range map[string]bool{"1.7.34": true, "2.3.4": false} {
		h := host(t, map[string]string{
			containerdConfig:                "version = 2\nimports = [\"conf.d/*.toml\"]\n" + criV2 + "\nconfig_path = \"/etc/containerd/certs.d\"\n",
			"/etc/containerd/conf.d/a.toml": "version = 2\n" + runcV2,
		})
		h.Versions[Containerd] = version
		if got := strings.Contains(notes(h.plan(t, containerdOnly("r.example"))), "config_path is empty"); got != inactive {
			t.Errorf("%s: inactive %v", version, got)
		}
	}
}

func TestDockersConfigFileIsTheOneThatItWasGiven(t *testing.T) {
	h := dockerHost(t, "20.10.24", merge(proc(9, "dockerd", 0, "dockerd", "--config-file=/srv/d.json"), map[string]string{"/srv/d.json": "{}", "/etc/docker/": ""}))
	before := h.snapshot(t)
	h.apply(t, dockerOnly())
	contains(t, h.get(t, "/srv/d.json"), ourURL)
	h.missing(t, dockerJSON)
	if err := os.RemoveAll(h.path("/proc")); err != nil { // it is stopped, and the flag not to be found
		t.Fatal(err)
	}
	h.revert(t)
	after := h.snapshot(t)
	if before["/srv/d.json"] != after["/srv/d.json"] {
		t.Errorf("was %q, is %q", before["/srv/d.json"], after["/srv/d.json"])
	}
	h.missing(t, dockerJSON)
}

func TestAnotherDockerdIsNotTheHosts(t *testing.T) {
	h := dockerHost(t, "20.10.24", proc(9, "dockerd", 0, "dockerd", "--config-file", "/tmp/x.json", "--pidfile", "/tmp/x.pid"))
	if state := h.plan(t, dockerOnly()).Engines[0]; state.Running || state.Config != dockerJSON {
		t.Errorf("%+v", state)
	}
}

func TestDaemon44FlagsThatAReloadForgetsAreToldBefore(t *testing.T) {
	h := dockerHost(t, "20.10.24", proc(9, "dockerd", 0, "dockerd", "--max-concurrent-downloads=10"))
	h.signaler = &fakeDockerd{host: h}
	contains(t, notes(h.plan(t, dockerOnly())), "sets back to its default", "--max-concurrent-downloads", "move it to "+dockerJSON)
	h.apply(t, dockerOnly())
	if got := notes(h.plan(t, dockerOnly())); strings.Contains(got, "max-concurrent") {
		t.Errorf("nothing is to be reloaded any more: %s", got)
	}
}

func TestDaemon47RootlessIsLeftAlone(t *testing.T) {
	for version, says := range map[string]string{"28.5.2": "before 29.5 cannot reach the host's loopback", "29.5.0": "root writes nothing into a user's home"} {
		h := host(t, merge(proc(9, "dockerd", 1000, "/usr/bin/dockerd", "--config-file", "/home/u/d.json"), map[string]string{"/home/u/d.json": "{}", "/etc/docker/": ""}))
		h.Versions[Docker] = version
		before := h.get(t, "/home/u/d.json")
		plan := h.plan(t, dockerOnly())
		contains(t, notes(plan), says)
		if s := plan.Engines[1]; s.Home != "rootless of user 1000" || s.Version != version || s.Mirror != "left alone" {
			t.Errorf("%+v", s)
		}
		h.apply(t, dockerOnly())
		if got := h.get(t, "/home/u/d.json"); got != before {
			t.Errorf("got %s", got)
		}
	}
}

func TestHomesOfOtherDistributions(t *testing.T) {
	const generated = "# File generated by k3s. DO NOT EDIT.\n"
	for _, home := range homes {
		t.Run(home.name, func(t *testing.T) {
			h := host(t, map[string]string{
				home.folder + "/config.toml":            "version = 2\n",
				home.hosts + "/k3s.example/hosts.toml":  generated,
				home.hosts + "/mine.example/hosts.toml": theirs,
			})
			h.Versions = nil
			before := h.snapshot(t)
			want := containerdOnly("k3s.example", "mine.example", "r.example")
			plan := h.plan(t, want)
			if len(plan.Engines) != 2 || plan.Engines[1].Home != home.name {
				t.Errorf("%+v", plan.Engines)
			}
			contains(t, notes(plan), "is written by k3s")
			h.apply(t, want)
			contains(t, h.get(t, home.hosts+"/r.example/hosts.toml"), ourHost)
			contains(t, h.get(t, home.hosts+"/mine.example/hosts.toml"), ourHost)
			if got := h.get(t, home.hosts+"/k3s.example/hosts.toml"); got != generated {
				t.Errorf("got %s", got)
			}
			h.missing(t, "/etc/containerd")
			h.revert(t)
			sameTree(t, before, h.snapshot(t))
		})
	}
}

// A containerd of the distribution's beside k3s: each has its own folder, and one
// does not take the other's files away.
func TestTwoContainerdsAreBothServed(t *testing.T) {
	h := host(t, map[string]string{"/etc/containerd/": "", homes[0].folder + "/config.toml": ""})
	before := h.snapshot(t)
	h.apply(t, containerdOnly("r.example"))
	h.get(t, rHosts)
	h.get(t, homes[0].hosts+"/r.example/hosts.toml")
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

func TestWhatElseIsSaidOfAHost(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		says  string
	}{
		"k0s":      {map[string]string{"/etc/k0s/containerd.d/": ""}, "restart k0s"},
		"snap":     {map[string]string{"/var/snap/docker/current/config/daemon.json": "{}"}, "use Docker's own packages"},
		"spegel":   {map[string]string{"/etc/containerd/certs.d/_backup/": ""}, "is Spegel's"},
		"microk8s": {map[string]string{homes[2].hosts + "/docker.io/hosts.toml": "server = \"https://docker.io\"\n" + theirs}, "write https://registry-1.docker.io"},
		"ansible":  {map[string]string{containerdConfig: "# Ansible managed: do not edit\nversion = 2\n"}, "says that Ansible writes it"},
		"nvidia":   {map[string]string{dockerJSON: `{"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}`}, "nvidia-ctk"},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t, merge(map[string]string{"/etc/docker/": "", "/etc/containerd/": ""}, test.files))
			contains(t, notes(h.plan(t, desired("docker.io"))), test.says)
		})
	}
}

func TestTheRunningDockerdsStoreDecides(t *testing.T) {
	for name, test := range map[string]struct {
		version, store string
		mirrors        bool
	}{
		"28 containerd": {"28.5.2", containerdStore, false},
		"28 overlay2":   {"28.5.2", "overlay2", true},
		"29 overlay2":   {"29.7.2", "overlay2", true},
		"29 containerd": {"29.7.2", containerdStore, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := dockerHost(t, test.version, nil)
			h.signaler = &fakeDockerd{host: h, store: test.store}
			h.apply(t, dockerOnly())
			if _, err := os.Stat(h.path(dockerJSON)); (err == nil) != test.mirrors {
				t.Errorf("daemon.json: %v", err)
			}
			if s := h.plan(t, dockerOnly()).Engines[0]; s.Store != test.store {
				t.Errorf("store %q", s.Store)
			}
		})
	}
}

// Docker 28 starting with the mirror that 27 was given would stop verifying TLS.
func TestDaemon45AnUpgradeHasItsHostsTomlBeforeItIsStarted(t *testing.T) {
	const status = "Package: docker-ce\nStatus: install ok installed\nVersion: 5:28.5.2-1\n"
	for running, says := range map[string]string{"27.5.1": "28.5.2 is installed and 27.5.1 still runs", "29.7.2": "29.7.2 still runs", "28.5.2": ""} {
		h := dockerHost(t, "", map[string]string{"/var/lib/dpkg/status": status})
		delete(h.Versions, Docker)
		h.signaler = &fakeDockerd{host: h, store: "overlay2", version: running}
		contains(t, notes(h.plan(t, dockerOnly())), says)
		h.apply(t, dockerOnly())
		contains(t, h.get(t, hubHosts), ourHost)
		if err := neverAlone(h); err != nil {
			t.Error(err)
		}
	}
}

func TestInfoOfDockerd(t *testing.T) {
	for text, want := range map[string]info{
		`{"ServerVersion":"28.5.2","Driver":"overlayfs","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]],"RegistryConfig":{"Mirrors":["http://a/"]}}`: {"28.5.2", []string{"http://a/"}, "containerd"},
		`{"ServerVersion":"20.10.24","Driver":"overlay2","DriverStatus":[["Backing Filesystem","extfs"]]}`:                                                           {"20.10.24", nil, "overlay2"},
	} {
		got, err := readInfo(strings.NewReader(text))
		if err != nil || got.version != want.version || got.store != want.store || !slices.Equal(got.mirrors, want.mirrors) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if _, err := readInfo(strings.NewReader("<html>")); err == nil {
		t.Error("no error")
	}
}

// A run that is killed between the write and the reload leaves a file that is right
// and a dockerd that does not know it.
func TestAReloadThatNeverCameIsMadeUp(t *testing.T) {
	h := dockerHost(t, "20.10.24", nil)
	fake := &fakeDockerd{host: h}
	h.apply(t, dockerOnly()) // with nobody told
	h.signaler = fake
	plan := h.plan(t, dockerOnly())
	if !slices.Equal(plan.Signals(), []string{"reload docker"}) || len(plan.Changes) != 0 {
		t.Errorf("signals %q, changes %v", plan.Signals(), plan.Changes)
	}
	if _, err := Apply(context.Background(), h, plan); err != nil || fake.reloads != 1 {
		t.Errorf("%d reloads, %v", fake.reloads, err)
	}
	if plan := h.plan(t, dockerOnly()); len(plan.Signals()) != 0 {
		t.Errorf("signals %q", plan.Signals())
	}
}

func TestARestartThatNeverCameIsMadeUp(t *testing.T) {
	files := merge(proc(77, "containerd", 0, "containerd"), map[string]string{
		containerdConfig: "version = 2\n", "/proc/stat": "cpu 0\nbtime 1000000000\n",
		"/proc/77/stat": "77 (con) tainerd) S" + strings.Repeat(" 1", 18) + " 500 1\n",
	})
	h := host(t, files)
	h.Versions[Containerd] = "1.7.34"
	h.apply(t, restarting())
	fake := &fakeDockerd{host: h}
	h.signaler = fake
	contains(t, notes(h.plan(t, containerdOnly("r.example"))), "set after containerd was started")
	plan := h.plan(t, restarting())
	if !slices.Equal(plan.Signals(), []string{"restart containerd"}) {
		t.Errorf("signals %q", plan.Signals())
	}
	if _, err := Apply(context.Background(), h, plan); err != nil || fake.restarts != 1 {
		t.Errorf("%d restarts, %v", fake.restarts, err)
	}
	h.put(t, "/proc/stat", fmt.Sprintf("btime %d\n", time.Now().Unix())) // started since
	if plan := h.plan(t, restarting()); len(plan.Signals()) != 0 {
		t.Errorf("signals %q", plan.Signals())
	}
}

// setFlags is chattr(1).
func setFlags(t *testing.T, name string, flags int) bool {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags) == nil
}

func TestAnImmutableFileIsRefusedByThePlan(t *testing.T) {
	for _, name := range []string{dockerJSON, dockerFolder} {
		h := dockerHost(t, "20.10.24", map[string]string{dockerJSON: "{}"})
		if !setFlags(t, h.path(name), immutable) {
			t.Skip("only root may make files immutable, where the file system knows that")
		}
		before := h.snapshot(t)
		contains(t, refusals(h.plan(t, dockerOnly())), dockerJSON+": cannot be replaced", "chattr -i")
		if _, err := h.try(t, dockerOnly()); err == nil {
			t.Error("no error")
		}
		sameTree(t, before, h.snapshot(t))
		setFlags(t, h.path(name), 0)
		h.apply(t, dockerOnly())
	}
}

func FuzzProcess(f *testing.F) {
	f.Add([]byte("Name:\tdockerd\nPPid:\t1\nUid:\t0\t0\t0\t0\nNSpid:\t9\n"))
	f.Fuzz(func(t *testing.T, status []byte) {
		if p, ok := parseProcess(status); ok && (p.name == "" || strings.ContainsAny(p.name, " \n\t") || p.uid < 0) {
			t.Errorf("%+v", p)
		}
	})
}

const immutable = 0x10 // FS_IMMUTABLE_FL of linux/fs.h
