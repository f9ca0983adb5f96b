package hostconfig

import (
	"os"
	"slices"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/journal"
)

// A list of folders often ends in Docker's, as the one does that containerd has built
// in from 2.2 on. What is there is Docker's: containerd once planned to take it out
// again, at every run.
func TestContainerdLeavesDockersFilesOfItsListAlone(t *testing.T) {
	for name, lost := range map[string]bool{"with the journal": false, "where the journal is lost": true} {
		t.Run(name, func(t *testing.T) {
			h := host(t, map[string]string{
				"/etc/docker/":   "",
				containerdConfig: "version = 3\n" + criV3 + "\nconfig_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n",
			})
			before := h.snapshot(t)
			want := engine.Desired{Mirror: ourURL, Registries: []string{hub}, Engines: []string{engine.Docker, engine.Containerd}}
			h.apply(t, want)
			if lost {
				if err := os.RemoveAll(h.path("/var")); err != nil {
					t.Fatal(err)
				}
			}
			if plan := h.plan(t, want); len(plan.Changes) > 0 {
				t.Errorf("after apply there is something to do: %s: %s", plan.Changes[0].Path, plan.Changes[0].Why)
			}
			h.revert(t)
			if !lost {
				sameTree(t, before, h.snapshot(t))
			}
			h.missing(t, dockerHosts+"/docker.io/hosts.toml")
			h.missing(t, containerdHosts+"/docker.io/hosts.toml")
		})
	}
}

// Two engines on one folder have one entry in the file, which stays as long as one of them wants it.
func TestTwoEnginesOnOneFolderShareTheEntry(t *testing.T) {
	h := host(t, map[string]string{"/etc/docker/certs.d/docker.io/hosts.toml": theirs, "/etc/containerd/": ""})
	// Both read the same words, and Docker keeps its images in the containerd store.
	h.Versions[engine.Docker], h.Versions[engine.Containerd] = "29.7.2", "2.3.4"
	if err := os.Symlink("../docker/certs.d", h.path(containerdHosts)); err != nil {
		t.Fatal(err)
	}
	before := h.snapshot(t)
	both := desired("docker.io", "r.example")
	plan := h.plan(t, both)
	if len(plan.Changes) != 2 || len(plan.Refused) != 0 {
		t.Fatalf("%d changes, refused: %v", len(plan.Changes), plan.Refused)
	}
	h.apply(t, both)
	after := h.snapshot(t)
	tree, err := hostfs.Open(h.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	j, err := journal.Load(tree)
	if err != nil || len(j.Files) != 2 {
		t.Fatalf("%+v, %v", j, err)
	}
	for _, e := range j.Files {
		if !slices.Equal(e.Engines, []string{engine.Docker, engine.Containerd}) || len(e.Paths) != 2 {
			t.Errorf("%+v", e)
		}
	}
	for _, one := range []string{engine.Docker, engine.Containerd} {
		want := both
		want.Engines = []string{one}
		h.apply(t, want)
		sameTree(t, after, h.snapshot(t))
	}
	// An engine that is left alone keeps what it shares.
	for _, one := range []string{engine.Docker, engine.Containerd} {
		h.apply(t, engine.Desired{Mirror: ourURL, Leave: []string{one}})
		sameTree(t, after, h.snapshot(t))
	}
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}
