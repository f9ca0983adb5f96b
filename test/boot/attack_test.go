package boot

import (
	"strings"
	"testing"
)

// liveRestore is daemonJSON of a host whose containers outlive dockerd.
var liveRestore = strings.Replace(daemonJSON, "{\n", "{\n\t\"live-restore\": true,\n", 1)

// Only root chooses what root reads, runs and writes: a user's process that has an engine's name
// and, by a setuid program, root's effective user id is not an engine; nor is a process of a
// container that shares the host's process ids.
func TestProcessesThatOnlyLookLikeEnginesAreNotBelieved(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			p := built(t)
			m := newMachine(t, s)
			connect(t, m)
			m.readCerts()
			m.write("/etc/docker/daemon.json", liveRestore, 0o640)
			m.carry(p.deb, p.newDeb)
			m.boot()
			a := newAttacker(m)
			a.fakes()
			etc := m.tree("/etc")

			m.step("installation", func(testing.TB) {
				m.run("dpkg --install " + inside(p.deb))
				m.settled()
				a.unheard("installation", etc)
			})
			m.step("engines that started before the fakes", func(testing.TB) { a.attack(etc, true) })
			m.step("engines that started after the fakes", func(testing.TB) {
				m.run("systemctl restart containerd.service docker.service")
				a.attack(etc, true)
			})
			m.step("engines that are stopped", func(testing.TB) {
				m.run("systemctl stop docker.socket docker.service containerd.service")
				a.attack(etc, true)
				if state := m.property("docker.service", "ActiveState"); state != "inactive" {
					t.Errorf("Docker was stopped, and is %s", state)
				}
				m.startEngines()
			})
			m.step("upgrade", func(testing.TB) {
				m.run("dpkg --install " + inside(p.newDeb))
				m.settled()
				a.unheard("upgrade", etc)
			})
			m.step("containers with the host's process ids", func(t testing.TB) {
				m.startEngines()
				a.container()
				a.attack(etc, true)
				// docker.socket still listens: a connection would start Docker.
				m.run("systemctl stop docker.service")
				if contained := a.contained(); len(contained) != 2 {
					t.Errorf("without dockerd there run %q of the containers' engines", contained)
				}
				a.attack(etc, true)
				if state := m.property("docker.service", "ActiveState"); state != "inactive" {
					t.Errorf("Docker was stopped, and is %s", state)
				}
				m.startEngines()
				a.attack(etc, true)
				m.run("docker rm --force $(docker ps --quiet)")
			})
			m.step("removal", func(testing.TB) {
				m.run("dpkg --remove sidemirror")
				a.unheard("removal", etc)
			})
			m.step("engines that are not installed", func(testing.TB) {
				m.run("dpkg --purge " + strings.Join(s.engines(), " ") + "; rm -rf /etc/docker /etc/containerd")
				gone := m.tree("/etc")
				m.run("dpkg --install " + inside(p.deb))
				for _, unit := range ourUnits {
					m.eventually(unit+" is active", func() error { return m.active(unit) })
				}
				a.unheard("installation without engines", gone)
				a.attack(gone, false)
				for _, d := range m.tree("/etc").differences(gone, "/etc/sidemirror", "/etc/systemd/system") {
					t.Errorf("without an engine: %s", d)
				}
				m.run("dpkg --purge sidemirror")
				a.unheard("purge without engines", gone)
			})
		})
	}
}

// startEngines starts both engines, however often that was done just now.
func (m *machine) startEngines() {
	m.t.Helper()
	m.run("systemctl reset-failed containerd.service docker.service docker.socket; systemctl start containerd.service docker.socket docker.service")
}

// attack has everything of sidemirror's that runs as root look at the host. The engines' own
// files must be configured in spite of the fakes, where there are engines.
func (a *attacker) attack(etc tree, engines bool) {
	m := a.m
	m.t.Helper()
	for _, command := range []string{"sidemirror status", "sidemirror status --short", "sidemirror status --json", "sidemirror plan"} {
		a.silent(command)
		a.unheard(command, etc)
	}
	// In both orders: what the service has put right apply cannot be seen to do.
	m.run("systemctl stop sidemirror-hosts.service")
	m.run("sidemirror revert --files-only")
	a.unheard("sidemirror revert", etc)
	a.silent("sidemirror apply")
	a.unheard("sidemirror apply", etc)
	m.run("sidemirror revert --files-only && systemctl start sidemirror-hosts.service")
	if engines {
		m.settled()
	}
	a.unheard("sidemirror-hosts.service", etc)
	// A file that changes has the service look again.
	m.run("touch /etc/sidemirror/config.toml && systemctl reload sidemirror-hosts.service")
	a.silent("sidemirror status")
	a.unheard("sidemirror-hosts.service, reloaded", etc)
}
