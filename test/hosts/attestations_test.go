package hosts_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/registry"
)

// With attestations in an image, dockerd from 29.1 on asks for their referrers at each pull,
// and it asks only hosts that have this capability.
func TestDocker29PullsAttestedImagesThroughSidemirrorAlone(t *testing.T) {
	engine.NeedRoot(t)
	each(t, []engine.Generation{engine.Built}, func(t *testing.T, g engine.Generation) {
		for _, private := range []bool{false, true} {
			t.Run(map[bool]string{false: "public", true: "private"}[private], func(t *testing.T) {
				r := newRig(t, rigOptions{generation: g, private: private})
				r.do(t, 0, "apply")
				for _, name := range []string{"", otherName + "/"} {
					repository := fmt.Sprintf("alice/attested-%d", len(name))
					image := r.upstream.Push(t, repository, "v1", registry.Shape{Index: true, Attested: true, Size: 1 << 12})
					all, ours := r.upstream.Requests("/v2/" + repository + "/")
					others := all - ours
					pull := func(when string) {
						t.Helper()
						if err := r.host.PullDocker(t.Context(), name+repository, "v1", image.Digest); err != nil {
							t.Errorf("%s: %v", when, err)
						}
						if all, ours := r.upstream.Requests("/v2/" + repository + "/"); all-ours != others {
							t.Errorf("%s: %d requests reached the registry past sidemirror", when, all-ours-others)
						}
						if err := r.host.ForgetDocker(t.Context(), name+repository, "v1"); err != nil {
							t.Errorf("%s: %v", when, err)
						}
					}
					pull("the first time")
					if r.askedFor("referrers", repository) == 0 {
						t.Error("dockerd asked sidemirror for no referrers, so this test shows nothing")
					}
					pull("again")
					defer pull("while the registry is away")
				}
				r.upstream.Stop()
			})
		}
	})
}

// hostsFiles are the host's hosts.toml files by their paths.
func (r *rig) hostsFiles(t *testing.T) map[string]string {
	t.Helper()
	return r.hostsFilesBelow(t, "/etc/docker/certs.d", "/etc/containerd/certs.d")
}

func (r *rig) hostsFilesBelow(t *testing.T, folders ...string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join(r.host.Root, folder), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Name() == "hosts.toml" {
				name := strings.TrimPrefix(path, r.host.Root)
				found[name] = r.read(t, name)
			}
			return nil // a folder that is not there holds no file
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// A library before containerd 2.2 takes a file with the word for invalid as a whole.
func TestTheReferrersCapabilityIsWrittenForReadersThatKnowIt(t *testing.T) {
	engine.NeedRoot(t)
	for _, g := range engine.Generations() {
		t.Run(string(g), func(t *testing.T) {
			r := newRig(t, rigOptions{generation: g, files: map[string]string{config: certsPath, "/etc/docker/daemon.json": dockerJSON(g)}})
			r.do(t, 0, "apply")
			files := r.hostsFiles(t)
			if len(files) == 0 {
				t.Fatal("apply wrote no hosts.toml")
			}
			for name, content := range files {
				if has := strings.Contains(content, `"referrers"`); has != (g == engine.Built) {
					t.Errorf("%s has the capability: %v\n%s", name, has, content)
				}
			}
		})
	}
}

// After an upgrade or a downgrade of the engines apply writes what the new ones take. Until
// then pulls work, past sidemirror if need be.
func TestFilesFollowTheEnginesVersions(t *testing.T) {
	engine.NeedRoot(t)
	all := engine.Generations()
	for i, from := range all {
		for _, to := range []engine.Generation{all[(i+1)%len(all)], all[(i+len(all)-1)%len(all)]} {
			t.Run(string(from)+" to "+string(to), func(t *testing.T) {
				r := newRig(t, rigOptions{generation: from, files: map[string]string{config: certsPath}})
				first := r.takeTree(t)
				r.do(t, 0, "apply")
				kept := r.carriedFiles(t, first)
				// A host has its files over an upgrade; the rest is a new one here.
				r.sidemirror.Stop()
				kept[config] = certsPath
				r = newRig(t, rigOptions{generation: to, files: kept})
				for name, way := range map[string]by{"CRI": r.byCRI(t, hubName), "Docker": r.byDocker(t, "")} {
					if way == "" {
						t.Errorf("after the upgrade and before apply %s pulls nothing", name)
					}
				}
				r.do(t, 0, "apply")
				r.do(t, 0, "plan")
				if way := r.byCRI(t, hubName); way != viaSidemirror {
					t.Errorf("CRI pulls %s", way)
				}
				if way := r.byDocker(t, ""); way != viaSidemirror {
					t.Errorf("Docker pulls %s", way)
				}
				for name, content := range r.hostsFiles(t) {
					if strings.HasPrefix(name, "/etc/docker/") && !slices.Contains(readers, to) {
						continue // this Docker reads no hosts.toml files
					}
					if has := strings.Contains(content, `"referrers"`); has != (to == engine.Built) {
						t.Errorf("%s has the capability: %v\n%s", name, has, content)
					}
				}
				r.do(t, 0, "revert")
				if left := r.hostsFiles(t); len(left) > 0 {
					t.Errorf("after revert there are still %v", left)
				}
				if exists(filepath.Join(r.host.Root, "/var/lib/sidemirror-hosts/journal.json")) {
					t.Error("after revert there is still a journal")
				}
			})
			if len(all) == 2 {
				break
			}
		}
	}
}

// carriedFiles are the files that are new in comparison with a tree, and their contents.
func (r *rig) carriedFiles(t *testing.T, first tree) map[string]string {
	t.Helper()
	files := map[string]string{}
	for name := range r.takeTree(t) {
		file := filepath.Join(r.host.Root, name)
		if info, err := os.Lstat(file); err == nil && info.Mode().IsRegular() && first[name] == "" {
			files[name] = r.read(t, name)
		}
	}
	return files
}
