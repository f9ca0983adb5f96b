package hosts_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/registry"
)

// A host may have a mirror of Docker Hub already, with images that are nowhere else. They are
// pulled as before after apply, whether sidemirror runs or not, and after revert.
func TestMirrorsOfTheUserAreStillAsked(t *testing.T) {
	engine.NeedRoot(t)
	for _, c := range []struct {
		name        string
		generations []engine.Generation
		features    string // of daemon.json
	}{
		{"default-store", []engine.Generation{engine.Bookworm, engine.Trixie, engine.Sid, engine.Built}, ""},
		{"containerd-store", []engine.Generation{engine.Trixie, engine.Sid}, `, "features": {"containerd-snapshotter": true}`},
		{"graph-store", []engine.Generation{engine.Built}, `, "features": {"containerd-snapshotter": false}`},
	} {
		for _, g := range engine.Generations() {
			if !slices.Contains(c.generations, g) {
				continue
			}
			t.Run(string(g)+"/"+c.name, func(t *testing.T) {
				own := registry.Start(t, registry.Options{})
				r := newRig(t, rigOptions{generation: g, files: map[string]string{
					"/etc/docker/daemon.json": fmt.Sprintf("{\"registry-mirrors\": [%q]%s}\n", own.URL, c.features),
					config:                    criV2 + "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
					"/etc/containerd/certs.d/docker.io/hosts.toml": fmt.Sprintf("# mine\n[host.%q]\n", own.URL),
				}})
				first := r.takeTree(t)
				r.pullsFrom(t, own, false, "before apply")
				r.do(t, 0, "apply")
				r.pullsFrom(t, own, true, "after apply")
				r.sidemirror.Stop()
				r.pullsFrom(t, own, false, "while sidemirror is stopped")
				r.host.StartContainerd(t)
				r.host.StartDocker(t)
				r.pullsFrom(t, own, false, "after a restart of the engines, while sidemirror is stopped")
				r.do(t, 0, "revert")
				r.sameTree(t, "after revert", first)
				r.pullsFrom(t, own, false, "after revert")
				if got := r.info(t).RegistryConfig.Mirrors; len(got) != 1 || strings.TrimSuffix(got[0], "/") != own.URL.String() {
					t.Errorf("after revert dockerd has the mirrors %q", got)
				}
			})
		}
	}
}

// pullsFrom pulls by both engines what only the registry own has, and checks whether
// sidemirror is asked before it.
func (r *rig) pullsFrom(t *testing.T, own *registry.Registry, first bool, when string) {
	t.Helper()
	for name, pull := range map[string]func(repository, digest string) error{
		"CRI": func(repository, digest string) error {
			return r.host.PullCRI(t.Context(), hubName+"/"+repository+":v1", digest)
		},
		"Docker": func(repository, digest string) error {
			return r.host.PullDocker(t.Context(), repository, "v1", digest)
		},
	} {
		r.images++
		repository := fmt.Sprintf("alice/own-%d", r.images)
		image := own.Push(t, repository, "v1", registry.Shape{Size: 1 << 12})
		if err := pull(repository, image.Digest); err != nil {
			t.Errorf("%s, pulling by %s what another mirror has: %v", when, name, err)
		}
		if asked := r.asked(repository); asked > 0 != first {
			t.Errorf("%s, pulling by %s what another mirror has, sidemirror is asked %d times", when, name, asked)
		}
	}
}
