package boot

import (
	"fmt"
	"strings"
	"testing"
)

// healthy waits until doctor finds no broken link.
func (m *machine) healthy() {
	m.t.Helper()
	m.eventually("doctor finds no broken link", func() error {
		e, err := m.doctor()
		if err != nil || !e.OK || len(e.broken()) > 0 {
			return fmt.Errorf("%q, %w", e.broken(), err)
		}
		return nil
	})
}

// leavesNothing runs doctor on a healthy host and compares images and files before and after. pulls
// are engines that must have pulled the test image from all of these registries.
func (m *machine) leavesNothing(t testing.TB, pulls map[string][]string) {
	t.Helper()
	// Engines write into their databases, and services into their folders, at any time: buildkitd
	// writes the history of a build some seconds after it.
	changing := append([]string{"/var/lib/buildkit", "/var/lib/containers/storage", "/var/lib/containers/cache", "/run", "/var/cache/sidemirror", "/var/lib/sidemirror"}, others...)
	const images = "for c in 'docker images --quiet' 'ctr --namespace k8s.io images list --quiet' 'ctr --namespace default images list --quiet' 'ctr --namespace moby images list --quiet' 'podman images --quiet'; do " +
		"! command -v ${c%% *} >/dev/null || $c 2>/dev/null; done; " +
		"! command -v buildctl >/dev/null || buildctl du | awk '{ print $1 }'; " +
		"ls /tmp /var/tmp | grep -v ^systemd-private || :"
	stored, files := m.run(images), m.disk()
	out, err := m.try("sidemirror doctor")
	if err != nil || !strings.HasSuffix(out, "\nno broken link found\n") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	t.Logf("doctor prints\n%s", out)
	for name, registries := range pulls {
		_, chain, found := strings.Cut("\n"+out, "\n"+name+" ")
		if want := "pulled sidemirror's test image as " + strings.Join(registries, ", ") + "\n"; !found || !strings.Contains(chain[:strings.Index(chain+"\n\n", "test pull")+500], want) {
			t.Errorf("%s did not pull from %q:\n%s", name, registries, out)
		}
	}
	if now := m.run(images); now != stored {
		t.Errorf("before doctor the images were %q, and after it they are %q", stored, now)
	}
	for _, d := range m.disk().differences(files, changing...) {
		t.Errorf("doctor left behind %s", d)
	}
}

// mirrored are the registries of the default configuration.
var mirrored = []string{"docker.io", "ghcr.io", "quay.io", "registry.k8s.io"}

func TestDoctorReportsNothingOnAHealthyHostWithOneEngine(t *testing.T) {
	t.Parallel()
	p := built(t)
	for name, host := range map[string]struct {
		suite suite
		make  func(m *machine)
		pulls map[string][]string
	}{
		"docker": {trixie, func(m *machine) {
			m.write("/etc/docker/daemon.json", daemonJSON, 0o640)
		}, map[string][]string{"docker": {"docker.io"}}},
		"containerd as Kubernetes uses it": {trixie, func(m *machine) {
			m.run("dpkg --purge --force-depends docker.io docker-cli")
			m.readCerts()
			m.write("/etc/crictl.yaml", "runtime-endpoint: unix:///run/containerd/containerd.sock\n", 0o644)
		}, map[string][]string{"containerd": mirrored}},
		"podman": {people, func(m *machine) {
			m.run("dpkg --purge --force-depends docker.io docker-cli docker-buildx containerd")
			m.write("/etc/containers/storage.conf", "[storage]\ndriver = \"vfs\"\ngraphroot = \"/var/lib/containers/storage\"\nrunroot = \"/run/containers/storage\"\n", 0o644)
		}, map[string][]string{"podman": mirrored}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, host.suite)
			connect(t, m)
			host.make(m)
			m.carry(p.deb)
			m.boot()
			m.run("dpkg --install " + inside(p.deb))
			m.run(noConfiguration)
			m.healthy()
			m.leavesNothing(t, host.pulls)
		})
	}
}
