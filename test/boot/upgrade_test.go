package boot

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// An upgrade that changes the port never leaves the engines with an address that another user can
// open, and no pull fails over it.
func TestUpgradeToAnotherPort(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			p := built(t)
			deb, _ := former(t)
			m, net := freshHost(t, s, deb, p.deb, p.newDeb)
			m.installFormer(net, "", "dpkg --install "+inside(deb))

			m.step("upgrade while pulls run", func(testing.TB) {
				m.move(net, "dpkg --force-confold --install "+inside(p.deb))
			})
			m.step("another upgrade before the boot", func(testing.TB) {
				m.run("dpkg --force-confold --install " + inside(p.newDeb))
				m.moved(net, "again")
			})
			m.step("sockets restarted before the boot", func(testing.TB) {
				m.run("systemctl restart sidemirror.socket sidemirror.service")
				m.moved(net, "restarted")
			})
			m.step("boot", func(t testing.TB) {
				m.reboot()
				m.moved(net, "rebooted")
				if open := m.listening(formerPort); open != "" {
					t.Errorf("after a boot the former port is open: %s", open)
				}
			})
		})
	}
}

// The configuration may name the former port. It stays in use then, in spite of the risk, which is
// reported.
func TestUpgradeKeepsAPortThatTheConfigurationNames(t *testing.T) {
	t.Parallel()
	p := built(t)
	deb, _ := former(t)
	m, net := freshHost(t, trixie, deb, p.deb)
	m.installFormer(net, "listen = [\"127.0.0.1:"+formerPort+"\"]\n", "dpkg --install "+inside(deb))

	squatters := []*squatter{m.squat(formerPort, ""), m.squat("305", "")}
	pulls := m.pullOn(net, "named")
	time.Sleep(phase / 4) // pulls are under way
	t.Logf("the upgrade prints:\n%s", m.run("dpkg --force-confold --install "+inside(p.deb)))
	for _, boot := range []string{"upgraded", "restarted", "rebooted"} {
		switch boot {
		case "restarted":
			pulls.stop()
			for _, q := range squatters {
				q.expectNothing()
			}
			m.run("systemctl restart sidemirror.socket sidemirror.service")
		case "rebooted":
			m.reboot()
		}
		for _, file := range engineFiles {
			if err := m.configuredFor(formerPort, file); err != nil {
				t.Errorf("%s: %v", boot, err)
			}
		}
		m.through(net, boot)
		if out, err := m.try("sidemirror status"); err == nil || !strings.Contains(out, "any user") {
			t.Errorf("%s: status does not report that every user can take the port: %v\n%s", boot, err, out)
		}
		for _, port := range []string{formerPort, "305"} {
			if m.listening(port) == "" {
				t.Errorf("%s: port %s is not open", boot, port)
			}
		}
	}
	m.run("dpkg --remove sidemirror")
	if left := m.run("find /etc/systemd/system -name '*listen.conf'"); left != "" {
		t.Errorf("after the removal there is %s", left)
	}
}

// The same without a boot before the removal, by rpm.
func TestRPMUpgradeToAnotherPort(t *testing.T) {
	t.Parallel()
	p := built(t)
	_, rpm := former(t)
	m, net := freshHost(t, trixie, rpm, p.rpm)
	m.run("rpm --initdb")
	m.installFormer(net, "", "rpm --install --nodeps "+inside(rpm))
	m.move(net, "rpm --upgrade --nodeps "+inside(p.rpm))
	m.run("rpm --erase sidemirror")
	for _, port := range []string{formerPort, "305"} {
		if open := m.listening(port); open != "" {
			t.Errorf("after the removal port %s is open: %s", port, open)
		}
	}
	if left := m.run("find /run -name '*sidemirror*'"); left != "" {
		t.Errorf("after the removal there is left in /run:\n%s", left)
	}
}

// installFormer installs a version with another port, which users can open. Such a version did not
// mind: so users can open it only afterwards.
func (m *machine) installFormer(net *internet, config, install string) {
	m.t.Helper()
	m.portsFrom(10000)
	m.run(install)
	if config != "" {
		m.write("/etc/sidemirror/config.toml", config, 0o644)
	}
	// The watcher has a network of its own, with the kernel's limit. It leaves the files alone.
	m.run("sidemirror apply")
	for _, file := range engineFiles {
		m.eventually(file+" has the former port", func() error { return m.configuredFor(formerPort, file) })
	}
	m.login(net)
	m.through(net, "former")
	m.portsFrom(1024)
	m.addUser()
}

// move runs the upgrade while engines pull and another user tries to open both ports.
func (m *machine) move(net *internet, upgrade string) {
	m.t.Helper()
	squatters := []*squatter{m.squat(formerPort, ""), m.squat("305", "")}
	pulls := m.pullOn(net, "moving")
	time.Sleep(phase / 4) // pulls are under way
	m.t.Logf("the upgrade prints:\n%s", m.run(upgrade))
	m.moved(net, "moved")
	pulls.stop()
	for _, q := range squatters {
		q.expectNothing()
	}
	ours, direct := pulls.visits()
	m.t.Logf("%d pulls while it was upgraded; the registry saw %d requests of sidemirror's and %d of engines", pulls.count(), ours, direct)
	if mirrors := m.run("docker info --format '{{.RegistryConfig.Mirrors}}'"); strings.Contains(mirrors, formerPort) {
		m.t.Errorf("Docker still has the former mirror: %s", mirrors)
	}
}

// moved expects that the engines have the new port and pull through it.
func (m *machine) moved(net *internet, name string) {
	m.t.Helper()
	for _, file := range engineFiles {
		m.eventually(file+" is configured", func() error { return m.configured(file) })
		if err := m.configuredFor(formerPort, file); err == nil {
			m.t.Errorf("%s has the former port", file)
		}
	}
	m.through(net, name)
	if failed := strings.Join(m.failed(), " "); strings.Contains(failed, "sidemirror") {
		m.t.Errorf("units have failed: %s", failed)
	}
	if open := m.listening("305"); open == "" {
		m.t.Error("port 305 is not open")
	}
}

// listening describes the sockets that listen at a port; it is empty if there are none.
func (m *machine) listening(port string) string {
	m.t.Helper()
	return strings.TrimSpace(m.run(fmt.Sprintf("ss --no-header --listening --tcp --numeric --processes 'sport = %s'", port)))
}
