package hosts_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
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

// A network in insecure-registries makes a registry insecure whose name leads there, as the host's own
// does on Debian. A hosts.toml of _default would override that, so that Docker gets none.
func TestDockerStillPullsByPlainHTTPFromANameAtALoopbackNetwork(t *testing.T) {
	engine.NeedRoot(t)
	each(t, readers, func(t *testing.T, g engine.Generation) {
		const name = "box.test:5001"
		local := registry.Start(t, registry.Options{Address: "127.0.1.1:5001"})
		r := newRig(t, rigOptions{
			generation: g, any: true, wildcard: true, unknown: map[string]*registry.Registry{"box.test": local},
			files: map[string]string{config: certsPath, "/etc/docker/daemon.json": dockerJSON(g, `"insecure-registries": ["127.0.0.0/8"]`)},
		})
		byDocker := func(when string) {
			t.Helper()
			got := r.pulledFrom(t, local, func(repository, digest string) error {
				return r.host.PullDocker(t.Context(), name+"/"+repository, "v1", digest)
			})
			if got != direct {
				t.Errorf("%s Docker pulls %s", when, got)
			}
		}
		byDocker("before apply")
		r.do(t, 0, "apply")
		byDocker("after apply")
		r.sidemirror.Stop()
		byDocker("while sidemirror is stopped")
		// Without the network Docker does not take a name at a loopback address for insecure.
		r.put(t, map[string]string{"/etc/docker/daemon.json": dockerJSON(g)})
		r.do(t, 0, "revert")
		r.host.StartDocker(t)
		if err := r.host.PullDocker(t.Context(), name+"/none", "v1", ""); err == nil || !strings.Contains(err.Error(), "HTTP response to HTTPS client") {
			t.Errorf("without the network Docker's pull ends with %v", err)
		}
	})
}

// A login is enough: for the proxy by its store, for the engines by the name of a file.
func TestARegistryThatNoTableNamesIsKnownByItsLogin(t *testing.T) {
	engine.NeedRoot(t)
	each(t, []engine.Generation{engine.Built}, func(t *testing.T, g engine.Generation) {
		r := newRig(t, rigOptions{generation: g, any: true, files: map[string]string{config: certsPath, "/etc/docker/daemon.json": dockerJSON(g)}})
		const name = "/var/lib/sidemirror-logins/registry-" + anyName + ".elsewhere"
		store := regexp.MustCompile(`store = "(.*)"`).FindStringSubmatch(r.read(t, "/etc/sidemirror/config.toml"))[1]
		authority, err := os.ReadFile(r.upstream.CA) // which the configuration names
		if err != nil {
			t.Fatal(err)
		}
		r.put(t, map[string]string{r.upstream.CA: string(authority)})
		r.do(t, 0, "apply")
		if cri, docker := r.byBoth(t, r.any, anyName); cri != direct || docker != direct {
			t.Errorf("without a login CRI pulls %s, Docker %s", cri, docker)
		}
		_, notes, code, err := r.host.Run(t.Context(), "/bin/sh", "-c", "echo secret | /srv/"+filepath.Base(harness.Binary(t))+" login "+anyName+" --username me --password-stdin")
		if err != nil || code != 0 || !strings.Contains(notes, anyName+" has no table") {
			t.Fatalf("login ends with %d, %v: %s", code, err, notes)
		}
		// The host's tree has a copy of the configuration, and not the proxy's own store.
		if err := os.WriteFile(store, []byte(r.read(t, store)), 0o600); err != nil {
			t.Fatal(err)
		}
		r.put(t, map[string]string{name: ""})
		r.do(t, 0, "apply")
		if cri, docker := r.byBoth(t, r.any, anyName); cri != viaSidemirror || docker != viaSidemirror {
			t.Errorf("with a login CRI pulls %s, Docker %s", cri, docker)
		}
		if err := os.WriteFile(store, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		// sidemirror refuses these requests without looking at what they ask for.
		if cri, docker := r.byBoth(t, r.any, anyName); cri != direct || docker != direct {
			t.Errorf("after the logout CRI pulls %s, Docker %s", cri, docker)
		}
		r.do(t, 0, "revert")
	})
}
