package hosts_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
)

// toolsFiles are what podman, buildah and skopeo need on a host.
var toolsFiles = map[string]string{
	"/etc/containers/policy.json":  `{"default":[{"type":"insecureAcceptAnything"}]}`,
	"/etc/containers/storage.conf": "[storage]\ndriver = \"vfs\"\ngraphroot = \"/var/lib/containers/storage\"\nrunroot = \"/run/containers/storage\"\n",
}

// tool is a program that pulls with the library containers/image.
type tool struct {
	name string
	line func(reference string) []string
}

var tools = []tool{
	{"podman", func(reference string) []string {
		return []string{"/usr/bin/podman", "--cgroup-manager", "cgroupfs", "--events-backend", "none", "pull", "--quiet", reference}
	}},
	{"buildah", func(reference string) []string { return []string{"/usr/bin/buildah", "pull", "--quiet", reference} }},
	{"skopeo", func(reference string) []string {
		return []string{"/usr/bin/skopeo", "copy", "--quiet", "docker://" + reference, "dir:/tmp/" + strings.NewReplacer("/", "-", ":", "-", "@", "-").Replace(reference)}
	}},
}

// pullBy pulls a reference on the host.
func (r *rig) pullBy(t *testing.T, by tool, reference string) error {
	t.Helper()
	stdout, stderr, code, err := r.host.Run(t.Context(), by.line(reference)...)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s: exit code %d\n%s%s", by.name, code, stdout, stderr)
	}
	return err
}

// toolsPull checks which way each tool pulls from a registry, by tag and by digest.
func (r *rig) toolsPull(t *testing.T, when, name string, want by) {
	t.Helper()
	for _, one := range tools {
		for _, byDigest := range []bool{false, true} {
			got := r.pulled(t, func(repository, digest string) error {
				reference := name + "/" + repository + ":v1"
				if byDigest {
					reference = name + "/" + repository + "@" + digest
				}
				return r.pullBy(t, one, reference)
			})
			if got != want {
				t.Errorf("%s %s pulls from %s (digest: %v) %s; want %s", when, one.name, name, byDigest, got, want)
			}
		}
	}
}

func newToolsRig(t *testing.T, age engine.Generation, files map[string]string) *rig {
	t.Helper()
	all := make(map[string]string)
	for _, some := range []map[string]string{toolsFiles, files} {
		for name, text := range some {
			all[name] = text
		}
	}
	return newRig(t, rigOptions{generation: age, files: all, tools: true})
}

// TestPodmanBuildahAndSkopeoPullThroughSidemirror shows the whole way of a file: pulls before apply go
// straight to the registry, after it through sidemirror, straight again while sidemirror is stopped,
// and after revert, which restores every byte.
func TestPodmanBuildahAndSkopeoPullThroughSidemirror(t *testing.T) {
	for _, age := range []engine.Generation{engine.Bookworm, engine.TrixieTools} {
		t.Run(string(age), func(t *testing.T) { pullsThroughSidemirror(t, age) })
	}
}

func pullsThroughSidemirror(t *testing.T, age engine.Generation) {
	t.Helper()
	r := newToolsRig(t, age, map[string]string{"/etc/containers/registries.conf": "unqualified-search-registries = [\"docker.io\"]\n"})
	r.toolsPull(t, "before apply", otherName, direct)
	first := r.takeTree(t)
	if stdout, _ := r.do(t, 0, "apply", "--engine", "podman"); !strings.Contains(stdout, "podman reads registries.conf files") {
		t.Errorf("apply says:\n%s", stdout)
	}
	r.toolsPull(t, "after apply", otherName, viaSidemirror)
	r.toolsPull(t, "after apply", hubName, viaSidemirror)
	stdout, _ := r.do(t, 0, "status", "--engine", "podman")
	if !strings.Contains(stdout, "podman") || !strings.Contains(stdout, "mirror active") {
		t.Errorf("status says:\n%s", stdout)
	}
	r.sidemirror.Stop()
	r.toolsPull(t, "while sidemirror is stopped", otherName, direct)
	r.do(t, 0, "revert")
	r.toolsPull(t, "after revert", otherName, direct)
	r.sameTree(t, "after revert", first)
}

// Without skopeo, podman pulls the probe, into a storage of its own that is removed. It leaves nothing
// on a host on which it has never run. buildah alone is not probed, and leaves nothing either.
func TestPodmanIsProbedWithoutSkopeo(t *testing.T) {
	for _, age := range []engine.Generation{engine.Bookworm, engine.TrixieTools} {
		for name, hidden := range map[string][]string{"podman": {"skopeo"}, "buildah": {"skopeo", "podman"}} {
			t.Run(string(age)+" "+name, func(t *testing.T) {
				r := newToolsRig(t, age, nil)
				for _, program := range hidden { // a device is no program
					if err := r.runs(t, "/usr/bin/mount", "--bind", "/dev/null", "/usr/bin/"+program); err != nil {
						t.Fatal(err)
					}
				}
				first := r.takeTree(t)
				stdout, stderr := r.do(t, 0, "apply", "--engine", "podman")
				if strings.Contains(stdout, "podman reads registries.conf files") != (name == "podman") {
					t.Errorf("apply prints:\n%s%s", stdout, stderr)
				}
				r.do(t, 0, "revert")
				r.sameTree(t, "after revert", first)
				for _, folder := range []string{"/var/lib/containers", "/run/libpod"} {
					if exists(r.host.Path(folder)) {
						t.Errorf("%s is left", folder)
					}
				}
				if left, err := filepath.Glob(r.host.Path("/tmp/sidemirror-probe-*")); err != nil || len(left) > 0 {
					t.Errorf("%q are left, %v", left, err)
				}
			})
		}
	}
}

// TestAUsersSkopeoPullsThroughSidemirrorUnlessTheUserHasAFileOfTheirOwn shows that the files of /etc are
// those of all users, and that up to podman 5 a user's own registries.conf switches them off.
func TestAUsersSkopeoPullsThroughSidemirrorUnlessTheUserHasAFileOfTheirOwn(t *testing.T) {
	r := newToolsRig(t, engine.Bookworm, nil)
	const home = "/home/ada"
	if err := errors.Join(os.MkdirAll(filepath.Join(r.host.Root, home), 0o755), os.Chown(filepath.Join(r.host.Root, home), 1000, 1000), os.Chmod(filepath.Join(r.host.Root, "tmp"), 0o1777), os.Chmod(r.host.Root, 0o755)); err != nil {
		t.Fatal(err)
	}
	skopeo := func(reference string) []string {
		line := []string{"/usr/bin/env", "HOME=" + home, "/usr/bin/setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"}
		return append(line, tools[2].line(reference)...)
	}
	pull := func(when string, want by) {
		t.Helper()
		got := r.pulled(t, func(repository, _ string) error {
			return r.pullBy(t, tool{"a user's skopeo", skopeo}, otherName+"/"+repository+":v1")
		})
		if got != want {
			t.Errorf("%s a user pulls %s; want %s", when, got, want)
		}
	}
	pull("before apply", direct)
	r.do(t, 0, "apply", "--engine", "podman")
	pull("after apply", viaSidemirror)
	r.put(t, map[string]string{home + "/.config/containers/registries.conf": ""})
	pull("with an own registries.conf", direct)
	stdout, _ := r.do(t, 0, "status", "--engine", "podman")
	if !strings.Contains(stdout, home+"/.config/containers/registries.conf: switches off all files of /etc/containers for that user") {
		t.Errorf("status says:\n%s", stdout)
	}
}
