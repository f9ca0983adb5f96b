package hosts_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/registry"
)

// startAtPort starts another registry on the host of the upstream, which the engines trust.
func (r *rig) startAtPort(t *testing.T, port string) *registry.Registry {
	t.Helper()
	other := registry.Start(t, registry.Options{Names: []string{otherName, r.upstream.URL.Hostname()}, Address: net.JoinHostPort(r.upstream.URL.Hostname(), port)})
	const trusted = "/etc/ssl/certs/ca-certificates.crt"
	pem, err := os.ReadFile(other.CA)
	if err != nil {
		t.Fatal(err)
	}
	r.put(t, map[string]string{trusted: r.read(t, trusted) + string(pem)})
	return other
}

// TestPodmanPullsFromOtherPortsOfAMirroredHost shows what docs/configure-hosts.md says: the ports that
// registries usually have need nothing, nor do those that the host's files name, and another one needs
// a table.
func TestPodmanPullsFromOtherPortsOfAMirroredHost(t *testing.T) {
	for _, age := range []engine.Generation{engine.Bookworm, engine.TrixieTools} {
		t.Run(string(age), func(t *testing.T) {
			r := newToolsRig(t, age, nil)
			usual, unusual := r.startAtPort(t, "5000"), r.startAtPort(t, "9000")
			check := func(when string, from *registry.Registry, want by) {
				t.Helper()
				for _, one := range tools {
					got := r.pulledFrom(t, from, func(repository, _ string) error {
						return r.pullBy(t, one, otherName+":"+from.URL.Port()+"/"+repository+":v1")
					})
					if got != want {
						t.Errorf("%s %s pulls from port %s %s; want %s", when, one.name, from.URL.Port(), got, want)
					}
				}
			}
			check("before apply", usual, direct)
			check("before apply", unusual, direct)
			r.do(t, 0, "apply")
			check("after apply", usual, direct)
			r.toolsPull(t, "after apply", otherName, viaSidemirror)
			image := unusual.Push(t, "alice/unnamed", "v1", registry.Shape{Size: 1 << 12})
			for _, one := range tools {
				if err := r.pullBy(t, one, otherName+":9000/alice/unnamed@"+image.Digest); err == nil || !strings.Contains(err.Error(), "rewriting reference: invalid reference format") {
					t.Errorf("%s pulls from a port that no entry names with %v; docs/recover.md has another error", one.name, err)
				}
			}

			// A certificate of that registry is enough, and what it has taught is not forgotten.
			const certificates = "/etc/containers/certs.d/" + otherName + ":9000"
			r.put(t, map[string]string{certificates + "/ca.crt": r.read(t, "/etc/ssl/certs/ca-certificates.crt")})
			r.do(t, 0, "apply")
			check("with a certificate", unusual, direct)
			if err := os.RemoveAll(filepath.Join(r.host.Root, certificates)); err != nil {
				t.Fatal(err)
			}
			r.do(t, 0, "apply")
			check("after its removal", unusual, direct)

			served := r.served
			served.Registries = append(served.Registries, harness.Registry{
				Name: otherName + ":9000", Upstreams: []string{unusual.URL.String()}, CA: unusual.CA,
			})
			r.sidemirror.Stop()
			r.sidemirror = harness.Start(t, served)
			config, err := os.ReadFile(filepath.Join(r.sidemirror.Dir(), "config.toml"))
			if err != nil {
				t.Fatal(err)
			}
			r.put(t, map[string]string{"/etc/sidemirror/config.toml": string(config)})
			r.do(t, 0, "apply")
			check("with a table", unusual, viaSidemirror)
			check("with a table", usual, direct)
			r.toolsPull(t, "with a table", otherName, viaSidemirror)
		})
	}
}
