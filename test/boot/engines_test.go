package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"
)

// Engines that are installed after sidemirror are configured then. When they are removed, so are
// their files.
func TestEnginesInstalledLater(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			p := built(t)
			m := newMachine(t, s)
			net := connect(t, m)
			m.run("dpkg --purge " + strings.Join(s.engines(), " "))
			m.carry(p.deb)
			m.boot()
			// What it prints on a host without engines.
			out := m.run("dpkg --install " + inside(p.deb))
			t.Logf("installed without engines, it says:\n%s", strings.Join(postinst(out), "\n"))
			if n := len(postinst(out)); n > 3 {
				t.Errorf("the postinst prints %d lines", n)
			}
			for _, unit := range ourUnits {
				m.eventually(unit+" is active", func() error { return m.active(unit) })
			}
			m.login(net)

			m.later(t, "containerd", "/etc/containerd/certs.d/ghcr.io/hosts.toml", "containerd_*.deb runc_*.deb")
			docker := "docker.io_*.deb"
			if s != bookworm {
				docker += " docker-cli_*.deb"
			}
			file := "/etc/docker/daemon.json"
			if s == sid {
				file = "/etc/docker/certs.d/docker.io/hosts.toml"
			}
			m.later(t, "docker", file, docker)
			m.stock(t, net)
			m.onDemand(t)
			m.gone(t, s)
		})
	}
}

// later installs an engine from what the root has, and waits for its file.
func (m *machine) later(t *testing.T, name, file, debs string) {
	t.Helper()
	if err := m.configured(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without %s there is %s: %v", name, file, err)
	}
	m.run("cd /srv/engines && dpkg --install --force-confold " + debs)
	took := m.eventually(file+" is configured", func() error { return m.configured(file) })
	t.Logf("%s is configured %.2f s after it was installed", name, took.Seconds())
}

// stock is containerd as Debian has it: CRI reads certs.d only after a restart, which the
// administrator asks for. The watcher must then leave the files as they are.
func (m *machine) stock(t *testing.T, net *internet) {
	m.pullsBy(t, net, docker, "later", true)
	m.pullsBy(t, net, kubernetes, "later-stock", false)
	if status := m.status(""); !strings.Contains(status, "sidemirror apply --restart-containerd") {
		t.Errorf("status does not say how to fix CRI:\n%s", status)
	}
	stock := m.tree("/etc/containerd/config.toml")
	before := m.property("containerd.service", "MainPID")
	t.Logf("sidemirror apply --restart-containerd:\n%s", m.run("sidemirror apply --restart-containerd"))
	if m.property("containerd.service", "MainPID") == before {
		t.Error("containerd was not restarted")
	}
	m.eventually("containerd is active", func() error { return m.active("containerd.service") })
	m.pullsBy(t, net, kubernetes, "later-applied", true)

	spliced := m.tree("/etc/containerd/config.toml")
	m.run("systemctl restart sidemirror-hosts.service")
	time.Sleep(2 * time.Second) // it would take it out again at its start, or within its window
	for _, d := range m.tree("/etc/containerd/config.toml").differences(spliced) {
		t.Errorf("the service took out what apply had put in: %s", d)
	}
	m.pullsBy(t, net, kubernetes, "later-kept", true)

	m.run("sidemirror revert")
	for _, d := range m.tree("/etc/containerd/config.toml").differences(stock) {
		t.Errorf("after revert %s", d)
	}
	m.run("systemctl enable --now sidemirror-hosts.service")
}

// pullsBy pulls a new public image from Docker Hub by one engine, and wants it to
// have come through us, or not.
func (m *machine) pullsBy(t testing.TB, net *internet, p puller, name string, through bool) {
	t.Helper()
	repository := "acme/" + name
	net.public.Push(t, repository, "v1", shape(1<<16))
	if err := p.pull(m, reference(hub, repository)); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	ours, direct := net.visits(hub, repository)
	if through && (ours < 4 || direct != 0) || !through && (ours != 0 || direct < 4) {
		t.Errorf("%s by %s: the registry saw %d requests of ours and %d of its own", name, p.name, ours, direct)
	}
}

// onDemand has a Docker that its socket starts on demand. sidemirror must not start it.
func (m *machine) onDemand(t *testing.T) {
	m.run("systemctl disable docker.service && systemctl enable docker.socket")
	m.reboot()
	m.eventually("the service that keeps the files is active", func() error { return m.active("sidemirror-hosts.service") })
	t.Logf("without Docker sidemirror-hosts.service took %v to start", m.startTime("sidemirror-hosts.service"))
	m.run("sidemirror status; sidemirror plan; true")
	time.Sleep(time.Second) // to be asked, if it is
	if state := m.property("docker.service", "ActiveState"); state != "inactive" {
		t.Errorf("nothing asked for Docker, and it is %s", state)
	}
	if err := m.configured("/etc/containerd/certs.d/ghcr.io/hosts.toml"); err != nil {
		t.Error(err)
	}
}

// gone purges the engines. sidemirror then removes its files, which no program needs.
func (m *machine) gone(t *testing.T, s suite) {
	m.eventually("containerd is configured again", func() error { return m.configured("/etc/containerd/certs.d/ghcr.io/hosts.toml") })
	m.run("dpkg --purge " + strings.Join(s.engines(), " "))
	took := m.eventually("nothing of ours is in the engines' folders", func() error {
		for _, file := range []string{"/etc/containerd/certs.d", "/etc/docker/certs.d", "/etc/docker/daemon.json"} {
			if _, err := os.Stat(m.path(file)); !errors.Is(err, fs.ErrNotExist) {
				there, _ := m.try("find " + file) // it may go just now
				return errors.Join(fmt.Errorf("there is %s", there), err)
			}
		}
		return nil
	})
	t.Logf("%.2f s after the engines were purged our files are gone", took.Seconds())
	if err := m.active("sidemirror-hosts.service"); err != nil {
		t.Error(err)
	}
}
