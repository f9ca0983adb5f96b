package boot

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// What may go wrong with a daemon, or is done to it, while pulls run.
func TestDisturbances(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			p := built(t)
			m, net := freshHost(t, s, p.deb, p.newDeb)
			m.run("apt-get install --yes --no-install-recommends --quiet " + inside(p.deb))
			m.settled()
			m.login(net)
			m.through(net, "before")

			m.step("restart", func(t testing.TB) { m.restarted(t, net) })
			m.step("kill", func(t testing.TB) { m.killed(t, net) })
			m.step("stop", func(t testing.TB) { m.stopped(t, net) })
			m.step("upgrade", func(t testing.TB) { m.upgraded(t, net, p) })
			m.step("faulty configuration", func(t testing.TB) { m.misconfigured(t, net) })
			m.step("proxy that cannot start", func(t testing.TB) { m.brokenDown(t, net) })
			m.step("port taken", func(t testing.TB) { m.outrun(t, net) })
			m.step("disabled", func(t testing.TB) { m.disabled(t, net, p) })
			if failed := strings.Join(m.failed(), " "); strings.Contains(failed, "sidemirror") {
				t.Errorf("units have failed: %s", failed)
			}
		})
	}
}

// settled waits until all units run and the engines are configured.
func (m *machine) settled() {
	m.t.Helper()
	for _, unit := range ourUnits {
		m.eventually(unit+" is active", func() error { return m.active(unit) })
	}
	for _, file := range engineFiles {
		m.eventually(file+" is configured", func() error { return m.configured(file) })
	}
}

func (m *machine) restarted(t testing.TB, net *internet) {
	before := m.property("sidemirror.service", "MainPID")
	m.during(net, "restart", func() {
		began := time.Now()
		m.run("systemctl restart sidemirror")
		t.Logf("systemctl restart took %.2f s", time.Since(began).Seconds())
	})
	if m.property("sidemirror.service", "MainPID") == before {
		t.Error("nothing was restarted")
	}
	m.through(net, "restarted")
}

func (m *machine) killed(t testing.TB, net *internet) {
	before := m.property("sidemirror.service", "MainPID")
	m.during(net, "kill", func() {
		m.run("kill -KILL " + before)
		took := m.eventually("another daemon runs", func() error { return m.replaced(before) })
		t.Logf("replaced %.2f s after SIGKILL", took.Seconds())
	})
	m.through(net, "killed")
}

// replaced reports whether the daemon runs, as another process.
func (m *machine) replaced(before string) error {
	if pid := m.property("sidemirror.service", "MainPID"); pid == before || pid == "0" {
		return fmt.Errorf("the main process is %s", pid)
	}
	return m.active("sidemirror.service")
}

// stopped hangs the daemon, as nothing but a debugger should, before many pulls and
// in their midst: engines of these versions wait for its answer without a limit.
func (m *machine) stopped(t testing.TB, net *internet) {
	before := m.property("sidemirror.service", "MainPID")
	m.during(net, "stop", func() {
		m.run("kill -STOP " + before)
		took := m.eventually("the watchdog replaces it", func() error { return m.replaced(before) })
		t.Logf("replaced %.2f s after SIGSTOP", took.Seconds())
	})
	m.through(net, "stopped")

	before = m.property("sidemirror.service", "MainPID")
	m.run("kill -STOP " + before)
	for _, p := range pullers {
		name := "hung-" + p.name
		repository := "acme/" + name
		net.public.Push(t, repository, "v1", shape(1<<16))
		began := time.Now()
		if err := p.pull(m, reference(hub, repository)); err != nil {
			t.Errorf("a pull by %s from a daemon that hangs: %v", p.name, err)
		}
		took := time.Since(began)
		t.Logf("a pull by %s from a daemon that hangs took %.2f s", p.name, took.Seconds())
	}
	m.eventually("the watchdog replaces it again", func() error { return m.replaced(before) })
	m.through(net, "unhung")
}

func (m *machine) upgraded(t testing.TB, net *internet, p packages) {
	before := m.property("sidemirror.service", "MainPID")
	socket := m.property("sidemirror.socket", "ActiveEnterTimestampMonotonic")
	etc := m.tree("/etc")
	m.write("/etc/sidemirror/config.toml", "# the administrator's\n[log]\nlevel = \"info\"\n", 0o644)
	was := m.run("sidemirror version")
	m.during(net, "upgrade", func() {
		began := time.Now()
		out := m.run("apt-get install --yes --no-install-recommends --quiet -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold " + inside(p.newDeb))
		t.Logf("the upgrade took %.2f s, and says:\n%s", time.Since(began).Seconds(), strings.Join(postinst(out), "\n"))
		if n := len(postinst(out)); n > 3 {
			t.Errorf("the postinst prints %d lines:\n%s", n, out)
		}
	})
	if is := m.run("sidemirror version"); is == was {
		t.Errorf("after the upgrade as before: %s", is)
	}
	if err := m.replaced(before); err != nil {
		t.Errorf("the upgrade did not restart the daemon: %v", err)
	}
	if now := m.property("sidemirror.socket", "ActiveEnterTimestampMonotonic"); now != socket {
		t.Errorf("the upgrade opened the sockets anew: %s, before %s", now, socket)
	}
	for _, d := range m.tree("/etc").differences(etc, "/etc/sidemirror") {
		t.Errorf("the upgrade changed %s", d)
	}
	if config := m.run("cat /etc/sidemirror/config.toml"); !strings.HasPrefix(config, "# the administrator's\n") {
		t.Errorf("the upgrade wrote over the configuration: %s", config)
	}
	m.through(net, "upgraded")
}

// misconfigured has an error in the configuration: first while the proxy runs, then at its start, and
// then at a start without an earlier configuration.
func (m *machine) misconfigured(t testing.TB, net *internet) {
	const lastGood = "/var/lib/sidemirror/last-good-config"
	good := m.run("cat /etc/sidemirror/config.toml")
	m.write("/etc/sidemirror/config.toml", "lissten = 1\n", 0o644)
	m.eventually("the proxy reports the error", func() error { return m.reports("sidemirror.service", `did you mean "listen"?`) })
	m.eventually("the watcher reports the error", func() error { return m.reports("sidemirror-hosts.service", `did you mean "listen"?`) })
	m.through(net, "faulty")
	m.run("systemctl restart sidemirror.service sidemirror-hosts.service")
	m.through(net, "faulty-restarted")

	// No configuration was ever valid: every request is refused, and engines fall back at once.
	m.run("systemctl stop sidemirror.service && rm -r " + lastGood + " && systemctl restart sidemirror.service")
	m.directly(net, "faulty-first")
	if out, err := m.try("sidemirror status"); err == nil || !strings.Contains(out, `did you mean "listen"?`) {
		t.Errorf("status does not report the error: %v\n%s", err, out)
	}
	m.write("/etc/sidemirror/config.toml", good, 0o644)
	m.eventually("the configuration is in force", func() error { return m.reports("sidemirror.service", "serving ") })
	m.through(net, "fixed")
	m.run("test -d " + lastGood)
}

// reports returns an error unless a unit's status line contains the text.
func (m *machine) reports(unit, text string) error {
	m.t.Helper()
	if line := m.property(unit, "StatusText"); !strings.Contains(line, text) {
		return fmt.Errorf("%s: %s", unit, line)
	}
	return nil
}

// brokenDown has a proxy that cannot start at all. systemd closes the sockets, so that engines do not
// wait, and opens them again when the watcher asks it to.
func (m *machine) brokenDown(_ testing.TB, net *internet) {
	m.dropIn("[Service]\nExecStart=\nExecStart=/bin/false\n")
	_, _ = m.try("systemctl restart sidemirror.service")
	m.eventually("systemd has closed the sockets", func() error {
		if state := m.property("sidemirror.socket", "ActiveState"); state != "failed" {
			return fmt.Errorf("sidemirror.socket is %s", state)
		}
		return nil
	})
	m.directly(net, "broken-down")
	m.dropIn("")
	// Until its limit for starts has passed, systemd refuses one.
	m.eventually("the watcher has opened the sockets", func() error {
		m.run("systemctl reload sidemirror-hosts.service")
		return m.active("sidemirror.socket")
	})
	m.through(net, "recovered")
}

// outrun has another program on the port when the sockets are opened.
func (m *machine) outrun(t testing.TB, outer *internet) {
	m.run("systemctl stop sidemirror.socket sidemirror.service")
	var other net.Listener
	m.eventually("systemd has let go of the port", func() (err error) {
		other, err = listenIn(m.holder, "127.0.0.1:305")
		return err
	})
	// The other program is no registry: it closes every connection.
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := other.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	if out, err := m.try("systemctl start sidemirror.socket"); err == nil {
		t.Errorf("the sockets were opened next to another program: %s", out)
	}
	if status, err := m.try("sidemirror status"); err == nil || !strings.Contains(status, "does not respond at") {
		t.Errorf("status does not report that the port is taken: %v\n%s", err, status)
	}
	m.directly(outer, "taken")
	_ = other.Close()
	<-done
	m.run("systemctl start sidemirror.socket sidemirror.service")
	m.through(outer, "freed")
}

// disabled has an administrator who does not want us to run, and an upgrade.
func (m *machine) disabled(t testing.TB, net *internet, p packages) {
	m.run("systemctl disable --now sidemirror.socket sidemirror.service sidemirror-hosts.service")
	m.run("dpkg --force-confold --install " + inside(p.newDeb))
	for _, unit := range ourUnits {
		if state := m.property(unit, "ActiveState"); state != "inactive" {
			t.Errorf("after an upgrade %s is %s", unit, state)
		}
		if state := m.property(unit, "UnitFileState"); strings.HasPrefix(state, "enabled") {
			t.Errorf("after an upgrade %s is %s", unit, state)
		}
	}
	m.directly(net, "disabled")
	m.reboot()
	m.directly(net, "disabled-rebooted")
	m.run("systemctl enable --now sidemirror.socket sidemirror-hosts.service")
	m.through(net, "enabled")
}
