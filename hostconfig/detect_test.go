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

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
)

func merge(all ...map[string]string) map[string]string {
	out := make(map[string]string)
	for _, files := range all {
		maps.Copy(out, files)
	}
	return out
}

func TestContainerdsConfigIsTheOneItIsStartedWith(t *testing.T) {
	const text = "version = 2\n" + criV2 + "\nconfig_path = \"/srv/hosts\"\n"
	unit := func(lines ...string) map[string]string {
		return map[string]string{"/lib/systemd/system/containerd.service": "[Service]\n" + strings.Join(lines, "\n") + "\n"}
	}
	for name, test := range map[string]struct {
		running []string
		files   map[string]string
	}{
		"process":                 {[]string{"/usr/bin/containerd", "--config", "/etc/mine.toml"}, nil},
		"process, short":          {[]string{"/usr/bin/containerd", "-c=/etc/mine.toml"}, nil},
		"process before its unit": {[]string{"/usr/bin/containerd", "-c=/etc/mine.toml"}, unit("ExecStart=containerd --config /other")},
		"unit":                    {nil, unit("ExecStart=/usr/bin/containerd --config /etc/mine.toml")},
		"unit with a comment":     {nil, unit("# ExecStart=containerd --config /other", "ExecStart=containerd --config /etc/mine.toml")},
		"variable":                {nil, unit("Environment=CONF=/etc/mine.toml", "ExecStart=/usr/bin/containerd --config ${CONF}")},
		"variable of a file": {nil, merge(unit("EnvironmentFile=/etc/default/containerd", "ExecStart=/usr/bin/containerd --config ${CONF}"),
			map[string]string{"/etc/default/containerd": "# CONF=/x\nCONF=\"/etc/mine.toml\"\n"})},
		"words of a variable": {nil, unit(`Environment="OPTS=--log-level debug --config /etc/mine.toml"`, "ExecStart=/usr/bin/containerd $OPTS")},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t, merge(test.files, map[string]string{"/etc/mine.toml": text, containerdConfig: "version = 2\n"}))
			if test.running != nil {
				fake := idle(h)
				fake.containerd = test.running
			}
			plan := h.plan(t, containerdOnly("r.example"))
			if state := plan.Engines[1]; state.Config != "/etc/mine.toml" || state.Hosts != "/srv/hosts" {
				t.Errorf("%+v", state)
			}
			if len(plan.Changes) != 1 || plan.Changes[0].Path != "/srv/hosts/r.example/hosts.toml" {
				t.Errorf("%+v", plan.Changes)
			}
		})
	}
}

// A variable that cannot be resolved may name any file.
func TestAnEngineIsLeftAloneIfItsConfigCannotBeKnown(t *testing.T) {
	for name, line := range map[string]string{
		"file that is missing": "EnvironmentFile=/etc/default/gone\nExecStart=/usr/bin/%s --config${F} ${CONF}",
		"specifier":            "ExecStart=/usr/bin/%s --config${F} /etc/%%i.toml",
		"relative":             "ExecStart=/usr/bin/%s --config${F} mine.toml",
	} {
		t.Run(name, func(t *testing.T) {
			unit := func(program, flag string) string {
				return "[Service]\n" + strings.ReplaceAll(fmt.Sprintf(line, program), "${F}", flag) + "\n"
			}
			h := host(t, map[string]string{
				"/lib/systemd/system/containerd.service": unit("containerd", ""), "/lib/systemd/system/docker.service": unit("dockerd", "-file"),
				"/etc/docker/": "", containerdConfig: "version = 2\n",
			})
			before := h.snapshot(t)
			plan := h.plan(t, desired("docker.io", "r.example"))
			if len(plan.Changes) != 0 || len(plan.Refused) != 2 {
				t.Errorf("changes %+v\nrefused %s", plan.Changes, refusals(plan))
			}
			for _, s := range plan.Engines {
				if s.Mirror != engine.Unknown {
					t.Errorf("%+v", s)
				}
			}
			_, _ = h.try(t, desired("docker.io", "r.example"))
			sameTree(t, before, h.snapshot(t))
		})
	}
}

// Up to 1.7 a file that is imported takes the whole of CRI's section away.
func TestAnImportHidesTheConfigPathBeforeIt(t *testing.T) {
	for version, inactive := range map[string]bool{"1.7.34": true, "2.3.4": false} {
		h := host(t, map[string]string{
			containerdConfig:                "version = 2\nimports = [\"conf.d/*.toml\"]\n" + criV2 + "\nconfig_path = \"/etc/containerd/certs.d\"\n",
			"/etc/containerd/conf.d/a.toml": "version = 2\n" + runcV2,
		})
		h.Versions[engine.Containerd] = version
		if got := strings.Contains(notes(h.plan(t, containerdOnly("r.example"))), "config_path is empty"); got != inactive {
			t.Errorf("%s: inactive %v", version, got)
		}
	}
}

func TestDockersConfigFileIsTheOneThatItWasGiven(t *testing.T) {
	h := dockerHost(t, "20.10.24", map[string]string{"/srv/d.json": "{}", "/etc/docker/": ""})
	fake := running(h)
	fake.docker = []string{"--config-file=/srv/d.json"}
	before := h.snapshot(t)
	h.apply(t, dockerOnly())
	contains(t, h.get(t, "/srv/d.json"), ourURL)
	h.missing(t, dockerJSON)
	fake.off = true // it is stopped, and the flag not to be found
	h.revert(t)
	after := h.snapshot(t)
	if before["/srv/d.json"] != after["/srv/d.json"] {
		t.Errorf("was %q, is %q", before["/srv/d.json"], after["/srv/d.json"])
	}
	h.missing(t, dockerJSON)
}

func TestFlagsThatAReloadForgetsAreReportedBefore(t *testing.T) {
	h := dockerHost(t, "20.10.24", nil)
	running(h).docker = []string{"--max-concurrent-downloads=10"}
	contains(t, notes(h.plan(t, dockerOnly())), "the reload resets", "--max-concurrent-downloads", "move these settings to "+dockerJSON)
	h.apply(t, dockerOnly())
	if got := notes(h.plan(t, dockerOnly())); strings.Contains(got, "max-concurrent") {
		t.Errorf("the warning stays although no reload is left: %s", got)
	}
}

func TestDockersOfUsersAreLeftAlone(t *testing.T) {
	h := host(t, map[string]string{"/home/u/.config/docker/daemon.json": "{}", "/etc/docker/": ""})
	idle(h).users = []int{1000, 1001}
	before := h.snapshot(t)
	plan := h.plan(t, dockerOnly())
	contains(t, notes(plan), "user 1000 seems to run", "user 1001 seems to run", "29.5")
	if s := plan.Engines[1]; s.Home != "users" || s.Mirror != "" || len(s.Problems) != 0 {
		t.Errorf("%+v", s)
	}
	h.apply(t, dockerOnly())
	sameTree(t, before, h.snapshot(t))
}

func TestWhatElseIsSaidOfAHost(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		says  string
	}{
		"snap":     {map[string]string{"/var/snap/docker/current/config/daemon.json": "{}"}, "use Docker's own packages"},
		"spegel":   {map[string]string{"/etc/containerd/certs.d/_backup/": ""}, "is Spegel's"},
		"microk8s": {map[string]string{microk8sHosts + "/docker.io/hosts.toml": "server = \"https://docker.io\"\n" + theirs}, "write https://registry-1.docker.io"},
		"ansible":  {map[string]string{containerdConfig: "# Ansible managed: do not edit\nversion = 2\n"}, "Ansible writes this file"},
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
		"28 containerd": {"28.5.2", "containerd", false},
		"28 overlay2":   {"28.5.2", "overlay2", true},
		"29 overlay2":   {"29.7.2", "overlay2", true},
		"29 containerd": {"29.7.2", "containerd", false},
	} {
		t.Run(name, func(t *testing.T) {
			h := dockerHost(t, test.version, nil)
			running(h).store = test.store
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
func TestAnUpgradedDockerHasItsHostsTomlBeforeItStarts(t *testing.T) {
	const status = "Package: docker-ce\nStatus: install ok installed\nVersion: 5:28.5.2-1\n"
	for version, says := range map[string]string{"27.5.1": "28.5.2 is installed, and 27.5.1 is still running", "29.7.2": "29.7.2 is still running", "28.5.2": ""} {
		h := dockerHost(t, "", map[string]string{"/var/lib/dpkg/status": status})
		delete(h.Versions, engine.Docker)
		running(h).version = version
		contains(t, notes(h.plan(t, dockerOnly())), says)
		h.apply(t, dockerOnly())
		contains(t, h.get(t, hubHosts), ourHost)
		if err := neverAlone(h); err != nil {
			t.Error(err)
		}
	}
}

// A run that is killed between the write and the reload leaves a file that is right
// and a dockerd that does not know it.
func TestAReloadThatNeverCameIsMadeUp(t *testing.T) {
	h := dockerHost(t, "20.10.24", nil)
	h.apply(t, dockerOnly()) // with no engine told
	fake := running(h)
	plan := h.plan(t, dockerOnly())
	if !slices.Equal(plan.Signals(), []live.Signal{{Engine: engine.Docker, Verb: live.Reload}}) || len(plan.Changes) != 0 {
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
	h := host(t, map[string]string{containerdConfig: "version = 2\n"})
	h.Versions[engine.Containerd] = "1.7.34"
	h.apply(t, restarting())
	fake := idle(h)
	fake.containerd, fake.started = []string{"containerd"}, time.Unix(1000000000, 0)
	plan := h.plan(t, containerdOnly("r.example"))
	contains(t, notes(plan), "set after containerd was started")
	if s := plan.Engines[1]; s.Mirror != engine.Inactive || len(plan.Signals()) != 0 {
		t.Errorf("%+v, signals %v", s, plan.Signals())
	}
	plan = h.plan(t, restarting())
	if !slices.Equal(plan.Signals(), []live.Signal{{Engine: engine.Containerd, Verb: live.Restart}}) {
		t.Errorf("signals %q", plan.Signals())
	}
	if _, err := Apply(context.Background(), h, plan); err != nil || fake.restarts != 1 {
		t.Errorf("%d restarts, %v", fake.restarts, err)
	}
	fake.started = time.Now()
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
		if !setFlags(t, h.path(name), 0x10 /* FS_IMMUTABLE_FL */) {
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
