package hostconfig

import (
	"os"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
)

func TestAnEngineThatComesIsServedAndOneThatGoesIsRestored(t *testing.T) {
	h := host(t, map[string]string{"/etc/hostname": "h"})
	idle(h)
	want := desired("docker.io")
	plan := h.plan(t, want)
	if len(plan.Changes) != 0 {
		t.Fatalf("%+v", plan.Changes)
	}
	contains(t, strings.Join(plan.Watch, "\n")+"\n", "/usr/bin/containerd\n", "/usr/bin/dockerd\n", k3sFolder+"\n")
	before := h.snapshot(t)
	if err := os.MkdirAll(h.path("/usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.path("/usr/bin/containerd"), nil, 0o755); err != nil { // its version is known
		t.Fatal(err)
	}
	h.apply(t, want)
	contains(t, h.get(t, containerdHosts+"/docker.io/hosts.toml"), ourHost)
	if err := os.RemoveAll(h.path("/usr")); err != nil {
		t.Fatal(err)
	}
	h.apply(t, want)
	sameTree(t, before, h.snapshot(t))
}

// What was allowed once, by hand, is not taken back by a run that was not told again.
func TestARestartThatWasAllowedOnceStays(t *testing.T) {
	for version, config := range map[string]string{
		"1.7.34": "version = 2\n" + runcV2,
		"2.2.7":  "version = 3\n" + criV3 + "\nconfig_path = \"/etc/containerd/certs.d:/b\"\n",
		"2.3.4":  "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n",
	} {
		t.Run(version, func(t *testing.T) {
			h := host(t, map[string]string{containerdConfig: config, "/etc/containerd/conf.d/": ""})
			h.Versions[engine.Containerd] = version
			before := h.snapshot(t)
			fake := idle(h)
			fake.containerd = []string{"containerd"}
			h.apply(t, restarting())
			after := h.snapshot(t)
			if plan := h.plan(t, containerdOnly("r.example")); len(plan.Changes)+len(plan.Signals())+len(plan.Refused) != 0 || notes(plan) != "" || plan.Engines[1].Mirror != engine.Active {
				t.Errorf("%+v\n%s", plan, notes(plan))
			}
			h.apply(t, containerdOnly("r.example"))
			sameTree(t, after, h.snapshot(t))
			h.apply(t, containerdOnly("r.example", "more.example")) // which needs no restart
			if fake.restarts != 1 {
				t.Errorf("%d restarts", fake.restarts)
			}
			contains(t, h.get(t, containerdHosts+"/more.example/hosts.toml"), ourTable)
			h.revert(t)
			sameTree(t, before, h.snapshot(t))
		})
	}
}

func TestAnEngineThatWasNamedOnceStays(t *testing.T) {
	h := host(t, map[string]string{"/etc/": ""})
	before := h.snapshot(t)
	idle(h) // in a tree the folder that is made would be enough to find it
	named := *h
	named.Present = []string{engine.Docker}
	want := desired("docker.io")
	want.Leave = []string{engine.Containerd}
	if _, err := named.try(t, want); err != nil {
		t.Fatal(err)
	}
	after := h.snapshot(t)
	contains(t, h.get(t, hubHosts), ourHost)
	h.apply(t, desired("docker.io"))
	sameTree(t, after, h.snapshot(t))
	h.apply(t, desired("docker.io", "r.example"))
	contains(t, h.get(t, dockerHosts+"/r.example/hosts.toml"), ourHost)
	// Until it should be configured no more.
	want = desired("docker.io", "r.example")
	want.Engines = []string{engine.Containerd}
	h.Present = []string{engine.Containerd}
	h.apply(t, want)
	h.missing(t, dockerHosts)
	h.Present = nil
	h.apply(t, desired("docker.io"))
	h.missing(t, dockerHosts)
	h.get(t, containerdHosts+"/docker.io/hosts.toml")
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}
