package hosts_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/registry"
)

// link makes a symbolic link on the host until the end of the test.
func (r *rig) link(t *testing.T, name, target string) {
	t.Helper()
	file := filepath.Join(r.host.Root, name)
	missing := file
	for folder := filepath.Dir(file); !exists(folder); folder = filepath.Dir(folder) {
		missing = folder
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.Symlink(target, file)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(missing); err != nil {
			t.Error(err)
		}
	})
}

// Several registries, or both engines, that have one real file. Planned by path, such a
// file is written and taken back by turns.
var farms = []struct {
	name  string
	files map[string]string // %s is a mirror of the user's
	links map[string]string
	path  string // config_path
}{
	{
		name:  "folders that are links to one folder",
		files: map[string]string{"/etc/containerd/certs.d/common/hosts.toml": "# ours for all\n[host.\"%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", "/etc/docker/certs.d/common/hosts.toml": "# ours for all\n[host.\"%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n"},
		links: map[string]string{
			"/etc/containerd/certs.d/docker.io": "common", "/etc/containerd/certs.d/ghcr.io": "common", "/etc/containerd/certs.d/reg.test": "/etc/containerd/certs.d/common",
			"/etc/docker/certs.d/docker.io": "common", "/etc/docker/certs.d/reg.test": "common",
		},
	},
	{
		name:  "folders that are links to one folder without a hosts.toml",
		files: map[string]string{"/srv/common/README": "see the wiki\n"},
		links: map[string]string{
			"/etc/containerd/certs.d/docker.io": "/srv/common", "/etc/containerd/certs.d/reg.test": "../../../srv/common",
			"/etc/docker/certs.d/docker.io": "/srv/common", "/etc/docker/certs.d/reg.test": "/srv/common",
		},
	},
	{
		name:  "files that are links to one file",
		files: map[string]string{"/srv/farm/hosts.toml": "[host.\"%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n"},
		links: map[string]string{
			"/etc/containerd/certs.d/docker.io/hosts.toml": "/srv/farm/hosts.toml", "/etc/containerd/certs.d/reg.test/hosts.toml": "/srv/farm/hosts.toml",
			"/etc/docker/certs.d/docker.io/hosts.toml": "/srv/farm/hosts.toml", "/etc/docker/certs.d/reg.test/hosts.toml": "/srv/farm/hosts.toml",
		},
	},
	{
		name:  "Docker's folder is a link to containerd's",
		files: map[string]string{"/etc/containerd/certs.d/README": "for both\n"},
		links: map[string]string{"/etc/docker/certs.d": "../containerd/certs.d"},
	},
	{
		name:  "containerd reads Docker's folder",
		files: map[string]string{"/etc/docker/certs.d/reg.test/hosts.toml": "[host.\"%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n"},
		path:  "/etc/docker/certs.d",
	},
	{
		name:  "one registry is a link to another",
		files: map[string]string{"/etc/containerd/certs.d/docker.io/hosts.toml": "[host.\"%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n"},
		links: map[string]string{"/etc/containerd/certs.d/reg.test": "docker.io"},
	},
}

func TestLinkedFoldersHaveOneFileThatIsWrittenOnce(t *testing.T) {
	engine.NeedRoot(t)
	each(t, engine.Generations(), func(t *testing.T, g engine.Generation) {
		own := registry.Start(t, registry.Options{})
		r := newRig(t, rigOptions{generation: g})
		for _, c := range farms {
			t.Run(c.name, func(t *testing.T) {
				r.farm(t, c.files, c.links, c.path, own)
				r.host.StartContainerd(t)
				r.host.StartDocker(t)
				first := r.takeTree(t)
				r.do(t, 0, "apply")
				applied := r.takeTree(t)
				r.do(t, 0, "plan")
				r.do(t, 0, "apply")
				r.sameTree(t, "after a second apply", applied)
				for _, name := range []string{hubName, otherName} {
					if way := r.byCRI(t, name); way != viaSidemirror {
						t.Errorf("after apply CRI pulls from %s %s", name, way)
					}
				}
				if way := r.byDocker(t, ""); way != viaSidemirror {
					t.Errorf("after apply Docker pulls %s", way)
				}
				r.do(t, 0, "revert")
				r.sameTree(t, "after revert", first)
			})
		}
	})
}

func TestWatchWritesALinkedFileOnce(t *testing.T) {
	engine.NeedRoot(t)
	each(t, []engine.Generation{engine.Built}, func(t *testing.T, g engine.Generation) {
		own := registry.Start(t, registry.Options{})
		r := newRig(t, rigOptions{generation: g})
		for _, c := range farms[:3] {
			t.Run(c.name, func(t *testing.T) {
				r.farm(t, c.files, c.links, c.path, own)
				const nearby = "/etc/containerd/certs.d/other.test/README"
				r.put(t, map[string]string{nearby: ""})
				r.host.StartContainerd(t)
				first := r.takeTree(t)
				watch := r.watch(t)
				r.sidemirror.Eventually("the host is as planned", func() bool {
					_, _, code := r.run(t, "plan")
					return code == 0
				})
				// A change nearby makes it look once more.
				applied := r.takeTree(t)
				r.rewrite(t, nearby, func(string) string { return "nothing\n" })
				time.Sleep(time.Second) // more than its quiet period
				applied.ignore(r.takeTree(t), nearby)
				r.sameTree(t, "a while later", applied)
				watch.Stop()
				for name, count := range changed(watch.Output()) {
					if count > 1 {
						t.Errorf("watch changed %s %d times:\n%s", name, count, watch.Output())
					}
				}
				r.do(t, 0, "revert")
				first.ignore(r.takeTree(t), nearby)
				r.sameTree(t, "after revert", first)
			})
		}
	})
}

// farm puts files, links and config_path into the host's tree.
func (r *rig) farm(t *testing.T, files, links map[string]string, path string, own *registry.Registry) {
	t.Helper()
	if path == "" {
		path = "/etc/containerd/certs.d"
	}
	r.put(t, map[string]string{config: strings.Replace(certsPath, "/etc/containerd/certs.d", path, 1)})
	for name, content := range files {
		if strings.Contains(content, "%s") {
			content = fmt.Sprintf(content, own.URL)
		}
		r.put(t, map[string]string{name: content})
	}
	for name, target := range links {
		r.link(t, name, target)
	}
}

// ignore takes over what another tree has of a file.
func (t tree) ignore(other tree, name string) { t[name] = other[name] }

// watch runs `sidemirror watch` on the host.
func (r *rig) watch(t *testing.T) *process.Daemon {
	t.Helper()
	running := func(string) error { return nil }
	return r.host.Start(t, running, "/srv/"+filepath.Base(harness.Binary(t)), "watch")
}

// changed counts how often a log of watch names each hosts.toml: once for each time that it
// is written or given back.
func changed(log string) map[string]int {
	counts := map[string]int{}
	for line := range strings.Lines(log) {
		if name := hostsName.FindString(line); name != "" && strings.Contains(line, "level=info") {
			counts[name]++
		}
	}
	return counts
}

var hostsName = regexp.MustCompile(`/[^ "=]+/hosts\.toml`)
