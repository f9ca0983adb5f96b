package boot

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/registry"
)

// The watching service, which is root in its sandbox, hands over to the proxy, which is another user
// in another one, how containerd reaches a registry: only containerd trusts the registry's authority.
func TestWhatTheEnginesTrustReachesTheProxyThroughTheSandboxes(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			p := built(t)
			m, net := freshHost(t, s, p.deb)
			const (
				corp   = "registry.corp.example"
				bundle = "/etc/ssl/certs/ca-certificates.crt"
				folder = "/etc/containerd/certs.d/" + corp
			)
			trusted, err := os.ReadFile(m.path(bundle))
			if err != nil {
				t.Fatal(err)
			}
			at := strings.LastIndex(string(trusted), "-----BEGIN CERTIFICATE-----")
			m.write(bundle, string(trusted[:at]), 0o644)
			m.run("mkdir --parents " + folder)
			m.write(folder+"/ca.crt", string(trusted[at:]), 0o600)
			m.run("dpkg --install " + inside(p.deb))
			m.settled()
			m.eventually("containerd is configured", func() error { return m.configured(folder + "/hosts.toml") })
			m.run("test -e /run/sidemirror-hosts/handover.json") // before the engines' files
			m.run("systemctl restart sidemirror.service")        // it may have begun before that
			const repository = "library/adopted"
			net.public.Push(t, repository, "v1", registry.Shape{Size: 1 << 16})
			if err := m.criPull(reference(corp, repository)); err != nil {
				t.Errorf("%v\n%s", err, strings.Join(m.journal("sidemirror.service"), "\n"))
			}
			if ours, direct := net.visits(corp, repository); ours < 4 || direct != 0 {
				t.Errorf("the registry saw %d requests of ours and %d of containerd's own", ours, direct)
			}
			for file, want := range map[string]string{
				"/run/sidemirror-hosts":               "root:sidemirror 2750",
				"/run/sidemirror-hosts/handover.json": "root:sidemirror 640",
				"/run/sidemirror-hosts/*.pem":         "root:sidemirror 640",
			} {
				if got := strings.TrimSpace(m.run("stat --format '%U:%G %a' " + file)); got != want {
					t.Errorf("%s is %s, want %s", file, got, want)
				}
			}
			if out := m.status(""); !strings.Contains(out, fmt.Sprintf("adopted     %s: 1 CA file (%s)", corp, folder)) {
				t.Errorf("status does not report it:\n%s", out)
			}
			m.run("dpkg --purge sidemirror")
			if left := m.run("ls -d /run/sidemirror* 2>/dev/null || :"); strings.TrimSpace(left) != "" {
				t.Errorf("a purge leaves %s", left)
			}
		})
	}
}
