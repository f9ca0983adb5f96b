package hostconfig

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// Several names of one real file have one change, one entry in the journal and one owner.
func TestNamesOfOneFileAreOneFile(t *testing.T) {
	for name, links := range map[string]map[string]string{
		"registries":  {containerdHosts + "/docker.io": "common", containerdHosts + "/ghcr.io": "common"},
		"engines":     {containerdHosts: "../docker/certs.d"},
		"one by one":  {containerdHosts + "/docker.io": "../../docker/certs.d/docker.io"},
		"file itself": {containerdHosts + "/docker.io/hosts.toml": "../../../docker/certs.d/docker.io/hosts.toml"},
		"all of it": {
			containerdHosts: "../docker/certs.d", dockerHosts + "/ghcr.io": "docker.io",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t, map[string]string{
				"/etc/docker/certs.d/docker.io/hosts.toml": theirs, containerdHosts + "x/": "",
				containerdConfig: "version = 2\n" + criV2 + "\nconfig_path = \"/etc/containerd/certs.d\"\n",
			})
			if err := os.MkdirAll(h.path("/etc/containerd/certs.d/common"), 0o755); err != nil {
				t.Fatal(err)
			}
			for at, target := range links {
				if at == containerdHosts {
					if err := os.RemoveAll(h.path(at)); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.MkdirAll(filepath.Dir(h.path(at)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(target, h.path(at)); err != nil {
					t.Fatal(err)
				}
			}
			h.Versions[engine.Docker], h.Versions[engine.Containerd] = "29.7.2", "1.7.34"
			before := h.snapshot(t)
			want := desired("docker.io", "ghcr.io")
			real := make(map[string]bool)
			for _, c := range h.plan(t, want).Changes {
				at, err := filepath.EvalSymlinks(filepath.Dir(h.path(c.Path)))
				if err != nil {
					at = filepath.Dir(h.path(c.Path))
				}
				if at = filepath.Join(at, "hosts.toml"); real[at] {
					t.Errorf("%s is changed twice", at)
				}
				real[at] = true
			}
			h.apply(t, want)
			for _, folder := range []string{containerdHosts, dockerHosts} {
				text := h.get(t, folder+"/docker.io/hosts.toml")
				if strings.Count(text, ourTable) != 1 {
					t.Errorf("%s has sidemirror's table %d times:\n%s", folder, strings.Count(text, ourTable), text)
				}
				if shared := folder == containerdHosts || name != "registries"; shared && strings.Contains(text, "referrers") {
					t.Errorf("containerd 1.7 would reject this file of %s:\n%s", folder, text)
				}
			}
			h.revert(t)
			sameTree(t, before, h.snapshot(t))
		})
	}
}

// Docker Hub needs the user's mirrors in the file, and ghcr.io must not have them.
func TestAFileThatTwoRegistriesNeedDifferentlyIsRefused(t *testing.T) {
	h := dockerHost(t, "29.7.2", map[string]string{dockerJSON: `{"registry-mirrors": ["https://m.example"]}`, dockerHosts + "/common/": ""})
	for _, registry := range []string{"docker.io", "ghcr.io"} {
		if err := os.Symlink("common", h.path(dockerHosts+"/"+registry)); err != nil {
			t.Fatal(err)
		}
	}
	before := h.snapshot(t)
	want := dockerOnly()
	want.Registries = append(want.Registries, "ghcr.io")
	plan := h.plan(t, want)
	contains(t, refusals(plan), "the two need different entries", "make them files of their own")
	if plan.Engines[0].Mirror != engine.Inactive {
		t.Errorf("%+v", plan.Engines[0])
	}
	if _, err := h.try(t, want); err == nil {
		t.Error("no error")
	}
	sameTree(t, before, h.snapshot(t))
}

func TestCapabilitiesFollowTheOldestReader(t *testing.T) {
	for name, test := range map[string]struct {
		docker, containerd, nerdctl string
		docker2, containerd2        bool // whose folder has files with "referrers"
	}{
		"Docker 29.1, containerd 2.2":   {"29.1.0", "2.2.0", "", true, true},
		"Docker 29.0, containerd 2.1":   {"29.0.4", "2.1.9", "", false, false},
		"Docker 28.5, containerd 1.7":   {"28.5.2", "1.7.34", "", false, false},
		"unknown versions":              {"", "", "", false, false},
		"nerdctl 2.2":                   {"29.7.2", "2.4.2", "2.2.0", true, true},
		"nerdctl 2.1":                   {"29.7.2", "2.4.2", "2.1.6", false, false},
		"nerdctl of an unknown version": {"29.7.2", "2.4.2", "x", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"/etc/docker/": "", containerdConfig: "version = 2\n" + criV2 + "\nconfig_path = \"/etc/containerd/certs.d\"\n"}
			if test.nerdctl != "" {
				files["/usr/local/bin/nerdctl"] = ""
			}
			h := host(t, files)
			h.Versions = map[string]string{engine.Docker: test.docker, engine.Containerd: test.containerd, "nerdctl": test.nerdctl}
			h.apply(t, desired("ghcr.io"))
			for folder, want := range map[string]bool{dockerHosts: test.docker2, containerdHosts: test.containerd2} {
				if text := h.get(t, folder+"/ghcr.io/hosts.toml"); strings.Contains(text, "referrers") != want {
					t.Errorf("%s:\n%s", folder, text)
				}
			}
			// An upgrade or a downgrade is planned anew.
			h.Versions[engine.Docker], h.Versions[engine.Containerd] = "29.1.0", "2.2.0"
			h.apply(t, desired("ghcr.io"))
			h.Versions[engine.Docker], h.Versions[engine.Containerd] = "28.5.2", "2.1.9"
			h.apply(t, desired("ghcr.io"))
			if text := h.get(t, dockerHosts+"/ghcr.io/hosts.toml"); strings.Contains(text, "referrers") {
				t.Errorf("after the downgrade:\n%s", text)
			}
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
