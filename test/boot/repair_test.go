package boot

import (
	"fmt"
	"strings"
	"testing"
)

// After a faulty configuration at an installation, an upgrade or a boot, repairing the file is enough:
// the proxy, its sockets and the watcher come back without a command.
func TestRepairingTheConfigurationIsEnough(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			p := built(t)
			m, net := freshHost(t, s, p.deb, p.newDeb)
			for _, stage := range []struct {
				name, fault string // the fault makes /etc/sidemirror/config.toml one that cannot be used
				do          func() (printed string)
			}{
				{"installation", `echo 'lissten = 1' >config.toml`, func() string { return m.run("dpkg --force-confold --install " + inside(p.deb)) }},
				{"upgrade", `echo '[registry' >config.toml`, func() string { return m.run("dpkg --force-confold --install " + inside(p.newDeb)) }},
				{"boot", `echo 'listen = ["127.0.0.1:1"]' >config.toml`, func() string { m.reboot(); return "" }},
				{"boot with a folder", `mkdir config.toml`, func() string { m.reboot(); return "" }},
				{"boot with an unreadable file", `echo >config.toml; chmod 600 config.toml`, func() string { m.reboot(); return "" }},
			} {
				m.step(stage.name, func(t testing.TB) {
					// Without a configuration that was good before.
					m.run("rm -rf /var/lib/sidemirror/last-good-config; mkdir -p /etc/sidemirror; cd /etc/sidemirror; rm -rf config.toml; " + stage.fault)
					if out := stage.do(); out != "" {
						m.faultyInstallation(t, postinst(out))
					}
					m.directly(net, "faulty-"+strings.ReplaceAll(stage.name, " ", "-"))
					m.run("cd /etc/sidemirror; rm -rf config.toml; echo >config.toml.new; mv config.toml.new config.toml")
					m.settled()
					m.eventually("the proxy serves", func() error { return m.reports("sidemirror.service", "serving every registry") })
					m.login(net)
					m.through(net, "repaired-"+strings.ReplaceAll(stage.name, " ", "-"))
					m.well(t)
				})
			}
		})
	}
}

// faultyInstallation expects the three lines of a person's first contact.
func (m *machine) faultyInstallation(t testing.TB, lines []string) {
	t.Helper()
	if len(lines) > 3 {
		lines = lines[len(lines)-3:] // dpkg's own come before
	}
	want := []string{
		"sidemirror: no configuration can be used, so engines use the registries directly",
		"sidemirror: the configuration on disk is not in force: /etc/sidemirror/config.toml:1:",
		"sidemirror: to undo it: apt remove sidemirror",
	}
	for i, line := range want {
		if len(lines) != len(want) || !strings.HasPrefix(lines[i], line) {
			t.Fatalf("the installation prints\n%s\nand not\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
		}
	}
	if !strings.HasSuffix(lines[1], "; hint: sidemirror config check") {
		t.Errorf("no hint: %s", lines[1])
	}
}

// However often the watcher ends, it is started again: by its own failures, signals, and restarts.
func TestNoLimitOfStartsEndsTheWatcher(t *testing.T) {
	t.Parallel()
	p := built(t)
	m, _ := freshHost(t, trixie, p.deb)
	m.run("dpkg --install " + inside(p.deb))
	m.settled()
	m.run("for i in $(seq 40); do systemctl restart sidemirror-hosts.service || exit; done")
	for _, signal := range []string{"TERM", "INT", "KILL", "SEGV"} {
		before := m.property("sidemirror-hosts.service", "MainPID")
		m.run("kill -" + signal + " " + before)
		// Not before it has another process: 0 would stand for the test's own group.
		m.eventually("the watcher runs again after SIG"+signal, func() error {
			if pid := m.property("sidemirror-hosts.service", "MainPID"); pid == before || pid == "0" {
				return fmt.Errorf("its main process is %s, and was %s", pid, before)
			}
			return m.active("sidemirror-hosts.service")
		})
	}
	m.write("/etc/docker/daemon.json", daemonJSON, 0o640)
	m.eventually("it does its work", func() error { return m.configured("/etc/docker/daemon.json") })
}
