package hosts_test

import (
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/registry"
)

// byBoth pulls a new image of a registry by CRI and by Docker, and reports which way each went.
func (r *rig) byBoth(t *testing.T, from *registry.Registry, name string) (cri, docker by) {
	t.Helper()
	cri = r.pulledFrom(t, from, func(repository, digest string) error {
		return r.host.PullCRI(t.Context(), name+"/"+repository+":v1", digest)
	})
	docker = r.pulledFrom(t, from, func(repository, digest string) error {
		return r.host.PullDocker(t.Context(), name+"/"+repository, "v1", digest)
	})
	return cri, docker
}

// A registry that no table names goes through sidemirror, and one at loopback does not.
func TestARegistryThatNoTableNamesIsPulledThroughSidemirror(t *testing.T) {
	engine.NeedRoot(t)
	each(t, readers, func(t *testing.T, g engine.Generation) {
		r := newRig(t, rigOptions{generation: g, any: true, wildcard: true, files: map[string]string{config: certsPath, "/etc/docker/daemon.json": dockerJSON(g)}})
		local := registry.Start(t, registry.Options{Address: "127.0.0.1:5000"})
		for _, name := range []string{"localhost:5000", "127.0.0.1:5000"} {
			if cri, docker := r.byBoth(t, local, name); cri != direct || docker != direct {
				t.Fatalf("before apply %s is pulled %s by CRI and %s by Docker", name, cri, docker)
			}
		}
		first := r.takeTree(t)
		r.do(t, 0, "apply")
		if cri, docker := r.byBoth(t, r.any, anyName); cri != viaSidemirror || docker != viaSidemirror {
			t.Errorf("CRI pulls %s, Docker %s", cri, docker)
		}
		r.expect(t, "with _default", ways{viaSidemirror, viaSidemirror, viaSidemirror, viaSidemirror})
		for _, name := range []string{"localhost:5000", "127.0.0.1:5000"} {
			// sidemirror refuses it, and the engine pulls from it as before.
			if cri, docker := r.byBoth(t, local, name); cri != fellBack || docker != fellBack {
				t.Errorf("%s is pulled %s by CRI and %s by Docker", name, cri, docker)
			}
		}
		r.do(t, 0, "plan")
		r.sidemirror.Stop()
		if cri, docker := r.byBoth(t, r.any, anyName); cri != direct || docker != direct {
			t.Errorf("while sidemirror is stopped, CRI pulls %s, Docker %s", cri, docker)
		}
		for _, name := range []string{"localhost:5000", "127.0.0.1:5000"} {
			if cri, docker := r.byBoth(t, local, name); cri != direct || docker != direct {
				t.Errorf("while sidemirror is stopped, %s is pulled %s by CRI and %s by Docker", name, cri, docker)
			}
		}
		r.do(t, 0, "revert")
		r.sameTree(t, "after revert", first)
	})
}
