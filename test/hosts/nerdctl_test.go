package hosts_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
)

// byNerdctl pulls a new image by nerdctl, which reads hosts.toml files itself.
func (r *rig) byNerdctl(t *testing.T, name string) by {
	t.Helper()
	return r.pulled(t, func(repository, digest string) error {
		reference := name + "/" + repository + ":v1"
		stdout, stderr, code, err := r.host.Run(t.Context(), "/usr/bin/nerdctl", "--snapshotter", "native", "pull", "--quiet", reference)
		if err == nil && code != 0 {
			err = fmt.Errorf("nerdctl pull %s: exit code %d\n%s%s", reference, code, stdout, stderr)
		}
		if err != nil {
			return err
		}
		stdout, _, _, err = r.host.Run(t.Context(), "/usr/bin/nerdctl", "image", "inspect", "--mode", "native", reference)
		if err == nil && !strings.Contains(stdout, digest) {
			err = fmt.Errorf("%s has not the digest %s:\n%s", reference, digest, stdout)
		}
		return err
	})
}

// nerdctl reads the folders of containerd and of Docker, whatever config_path is.
func TestNerdctlPullsThroughSidemirror(t *testing.T) {
	engine.NeedRoot(t)
	for _, c := range []struct {
		name            string
		files           map[string]string
		wildcard        bool
		hub, other, any by
	}{
		{name: "config_path is empty", hub: viaSidemirror, other: viaSidemirror, any: direct},
		{name: "any registry", wildcard: true, hub: viaSidemirror, other: viaSidemirror, any: viaSidemirror},
		{name: "a file in Docker's folder", files: map[string]string{"/etc/docker/certs.d/any.test/hosts.toml": fmt.Sprintf("[host.%q]\n", "https://"+anyName)},
			wildcard: true, hub: viaSidemirror, other: viaSidemirror, any: direct},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, rigOptions{generation: engine.Nerdctl, files: c.files, any: true, wildcard: c.wildcard, tools: true})
			r.host.StartContainerd(t)
			if got := r.byNerdctl(t, otherName); got != direct {
				t.Fatalf("before apply reg.test is pulled %s", got)
			}
			first := r.takeTree(t)
			stdout, stderr, _ := r.run(t, "apply", "--engine", "containerd")
			for name, want := range map[string]by{hubName: c.hub, otherName: c.other} {
				if got := r.byNerdctl(t, name); got != want {
					t.Errorf("after apply %s is pulled %s, want %s\n%s%s", name, got, want, stdout, stderr)
				}
			}
			got := r.pulledFrom(t, r.any, func(repository, _ string) error {
				return r.runs(t, "/usr/bin/nerdctl", "--snapshotter", "native", "pull", "--quiet", anyName+"/"+repository+":v1")
			})
			if got != c.any {
				t.Errorf("after apply any.test is pulled %s, want %s\n%s%s", got, c.any, stdout, stderr)
			}
			r.sidemirror.Stop()
			if got := r.byNerdctl(t, otherName); got != direct {
				t.Errorf("while sidemirror is stopped, reg.test is pulled %s", got)
			}
			r.do(t, 0, "revert")
			if got := r.byNerdctl(t, otherName); got != direct {
				t.Errorf("after revert reg.test is pulled %s", got)
			}
			r.sameTree(t, "after revert", first)
		})
	}
}
