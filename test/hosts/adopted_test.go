package hosts_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/network"
	"github.com/sidemirror/sidemirror/test/registry"
)

// handoverDir is where the host's sidemirror hands over to the proxy, which runs outside of the host.
const handoverDir = "/var/handover"

// adopting is a host whose engines reach registries by their own certs.d. Neither the host nor
// sidemirror's configuration has these settings.
type adopting struct {
	*rig
	generation engine.Generation
	registries map[string]*registry.Registry
}

// perRegistry returns the path of a file of a registry in the folders of both engines.
func perRegistry(name, file string) []string {
	return []string{"/etc/containerd/certs.d/" + name + "/" + file, "/etc/docker/certs.d/" + name + "/" + file}
}

func newAdopting(t *testing.T, g engine.Generation, registries map[string]*registry.Registry, files map[string]string) *adopting {
	t.Helper()
	all := map[string]string{config: certsPath, "/etc/docker/daemon.json": dockerJSON(g)}
	for name, text := range files {
		registry, file, _ := strings.Cut(name, "/")
		for _, at := range perRegistry(registry, file) {
			all[at] = text
		}
	}
	a := &adopting{generation: g, registries: registries}
	a.rig = newRig(t, rigOptions{generation: g, any: true, wildcard: true, unknown: registries, files: all})
	for name := range files {
		if strings.HasSuffix(name, ".key") {
			registry, file, _ := strings.Cut(name, "/")
			for _, at := range perRegistry(registry, file) {
				if err := os.Chmod(filepath.Join(a.host.Root, at), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	a.configure(t, "\n[engine]\nhandover_dir = \""+handoverDir+"\"\n")
	a.sidemirror.Stop()
	a.served.Env = append(slices.Clone(a.served.Env), "SIDEMIRROR_ENGINE_HANDOVER_DIR="+filepath.Join(a.host.Root, handoverDir))
	a.sidemirror = harness.Start(t, a.served)
	return a
}

// configure appends to the configuration of the host's sidemirror.
func (a *adopting) configure(t *testing.T, text string) {
	t.Helper()
	file := filepath.Join(a.host.Root, "/etc/sidemirror/config.toml")
	if err := os.WriteFile(file, []byte(a.read(t, "/etc/sidemirror/config.toml")+text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// reach checks how each registry is pulled from, by CRI, and by a Docker that reads hosts.toml.
func (a *adopting) reach(t *testing.T, when string, want map[string]by) {
	t.Helper()
	for name, way := range want {
		from := a.registries[name]
		got := a.pulledFrom(t, from, func(repository, digest string) error {
			return a.host.PullCRI(t.Context(), name+"/"+repository+":v1", digest)
		})
		if got != way {
			t.Errorf("%s CRI pulls from %s %s, want %s", when, name, got, way)
		}
		if !slices.Contains(readers, a.generation) {
			continue
		}
		got = a.pulledFrom(t, from, func(repository, digest string) error {
			return a.host.PullDocker(t.Context(), name+"/"+repository, "v1", digest)
		})
		if got != way {
			t.Errorf("%s Docker pulls from %s %s, want %s", when, name, got, way)
		}
	}
}

// handedOver waits until the proxy has taken what the host's sidemirror hands over.
func (a *adopting) handedOver(t *testing.T, reloads int) {
	t.Helper()
	for deadline := time.Now().Add(logLimit); strings.Count(a.sidemirror.Log(), `reason="a file changed"`) < reloads; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the proxy has not read what was handed over %d times", reloads)
		}
	}
}

func (a *adopting) reloads() int {
	return strings.Count(a.sidemirror.Log(), `reason="a file changed"`)
}

// secured starts a registry of its own authority.
func secured(t *testing.T, name, address string, clients bool) *registry.Registry {
	t.Helper()
	return registry.Start(t, registry.Options{Names: []string{name, ip(address)}, Address: address, ClientCertificates: clients})
}

func TestSidemirrorReachesARegistryAsTheEnginesDo(t *testing.T) {
	engine.NeedRoot(t)
	each(t, []engine.Generation{engine.Trixie, engine.Sid, engine.Built}, func(t *testing.T, g engine.Generation) {
		address := network.Address4(t, 443)
		ca := secured(t, "ca.test", address, false)
		client := secured(t, "client.test", network.Address4(t, 443), true)
		plain := registry.Start(t, registry.Options{Address: network.Address4(t, 80)})
		a := newAdopting(t, g, map[string]*registry.Registry{"ca.test": ca, "client.test": client, "plain.test": plain}, map[string]string{
			"ca.test/ca.crt":        readPEM(t, ca.CA),
			"client.test/ca.crt":    readPEM(t, client.CA),
			"client.test/me.cert":   readPEM(t, client.ClientCert),
			"client.test/me.key":    readPEM(t, client.ClientKey),
			"plain.test/hosts.toml": "server = \"http://plain.test\"\n\n[host.\"http://plain.test\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
		})
		a.reach(t, "before apply", map[string]by{"ca.test": direct, "client.test": direct, "plain.test": direct})

		before := a.reloads()
		out, _ := a.do(t, 0, "apply")
		for _, part := range []string{"adopted    ca.test: 1 CA file (", "adopted    plain.test: plain HTTP (", "only root can read the client key"} {
			if !strings.Contains(out, part) {
				t.Errorf("apply does not report %q:\n%s", part, out)
			}
		}
		a.handedOver(t, before+1)
		// Only root can read the client's key.
		a.reach(t, "after apply", map[string]by{"ca.test": viaSidemirror, "client.test": direct, "plain.test": viaSidemirror})

		before = a.reloads()
		a.configure(t, "adopt_client_keys = true\n")
		a.do(t, 0, "apply")
		a.handedOver(t, before+1)
		a.reach(t, "with a copy of the key", map[string]by{"client.test": viaSidemirror})
		for _, item := range a.handover(t) {
			if info, err := item.Info(); err != nil || info.Mode() != 0o640 {
				t.Errorf("%s has mode %v, %v", item.Name(), info.Mode(), err)
			}
		}
		out, _, _ = a.run(t, "status")
		if !strings.Contains(out, "adopted     client.test: 1 CA file, 1 client certificate (/etc/") {
			t.Errorf("status does not report the client certificate:\n%s", out)
		}

		// The registry gets another authority, and the engines get its certificate.
		watch := a.watch(t)
		ca.Stop()
		ca = secured(t, "ca.test", address, false)
		a.registries["ca.test"] = ca
		before = a.reloads()
		for _, at := range perRegistry("ca.test", "ca.crt") {
			if err := os.WriteFile(filepath.Join(a.host.Root, at), []byte(readPEM(t, ca.CA)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		a.handedOver(t, before+1)
		a.reach(t, "with a new authority", map[string]by{"ca.test": viaSidemirror})
		watch.Stop()

		a.do(t, 0, "revert")
		if left := a.handover(t); len(left) != 0 {
			t.Errorf("revert leaves %v", left)
		}
		for _, at := range perRegistry("ca.test", "hosts.toml") {
			if a.read(t, at) != "" {
				t.Errorf("revert leaves %s", at)
			}
		}
	})
}

// The certificate of the registry is of an authority that the host does not trust.
func TestWhatContainerdDoesNotVerifyDoesNotReachADockerThatDoes(t *testing.T) {
	engine.NeedRoot(t)
	each(t, readers, func(t *testing.T, g engine.Generation) {
		from := secured(t, "skip.test", network.Address4(t, 443), false)
		const unverified = "[host.\"https://skip.test\"]\n  capabilities = [\"pull\", \"resolve\"]\n  skip_verify = true\n"
		a := newAdopting(t, g, map[string]*registry.Registry{"skip.test": from}, map[string]string{"skip.test/hosts.toml": unverified})
		ofContainerd, ofDocker := perRegistry("skip.test", "hosts.toml")[0], perRegistry("skip.test", "hosts.toml")[1]

		before := a.reloads()
		a.do(t, 0, "apply")
		a.handedOver(t, before+1)
		a.reach(t, "if both do not verify it", map[string]by{"skip.test": viaSidemirror})

		if err := os.RemoveAll(filepath.Dir(filepath.Join(a.host.Root, ofDocker))); err != nil {
			t.Fatal(err)
		}
		before = a.reloads()
		out, _ := a.do(t, 0, "apply")
		a.handedOver(t, before+1)
		if strings.Contains(out, "adopted    skip.test") || strings.Contains(a.read(t, ofContainerd), "127.0.0.1") {
			t.Errorf("containerd's setting still counts for sidemirror:\n%s\n%s", out, a.read(t, ofContainerd))
		}
		for _, command := range []string{"plan", "status"} {
			if out, errs, _ := a.run(t, command); !strings.Contains(out+errs, "containerd pulls from it directly") {
				t.Errorf("%s does not say why:\n%s%s", command, out, errs)
			}
		}
		if got := a.pulledFrom(t, from, func(repository, digest string) error {
			return a.host.PullCRI(t.Context(), "skip.test/"+repository+":v1", digest)
		}); got != direct {
			t.Errorf("CRI pulls %s", got)
		}
		image := from.Push(t, "alice/refused", "v1", registry.Shape{Size: 1 << 12})
		all, _ := from.Requests("/v2/alice/refused/")
		if err := a.host.PullDocker(t.Context(), "skip.test/alice/refused", "v1", image.Digest); err == nil {
			t.Error("Docker has an image of a registry whose certificate it would refuse")
		}
		if now, _ := from.Requests("/v2/alice/refused/"); now != all {
			t.Errorf("the registry had %d requests for it", now-all)
		}

		a.do(t, 0, "revert")
		if text := a.read(t, ofContainerd); text != unverified {
			t.Errorf("revert leaves\n%s", text)
		}
	})
}

// handover lists what is handed over.
func (a *adopting) handover(t *testing.T) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(a.host.Root, handoverDir))
	if err != nil {
		t.Fatal(err)
	}
	return list
}
