package hosts_test

import (
	"fmt"
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
