package boot

import (
	"strings"
	"testing"
	"time"
)

// The rpm's scripts against a live systemd: those of Debian's rpm are run as they
// are anywhere; what it cannot know is which packages Debian has.
func TestRPM(t *testing.T) {
	t.Parallel()
	p := built(t)
	m, net := freshHost(t, trixie, p.rpm, p.newRPM)
	m.run("rpm --initdb")
	etc, all := m.tree("/etc"), m.disk()

	out := m.run("rpm --install --verbose --hash --nodeps " + inside(p.rpm))
	t.Logf("installed, it says:\n%s", out)
	if n := spoken(out); n == 0 || n > 3 {
		t.Errorf("the scriptlets print %d lines:\n%s", n, out)
	}
	// rpm runs scriptlets without a network (4.20, its plugin "unshare").
	if strings.Contains(out, "does not answer") {
		t.Errorf("the scriptlets say what is not so:\n%s", out)
	}
	m.settled()
	m.login(net)
	m.through(net, "rpm")
	m.write("/etc/sidemirror/config.toml", "# the administrator's\n", 0o644)

	before, socket := m.property("sidemirror.service", "MainPID"), m.property("sidemirror.socket", "ActiveEnterTimestampMonotonic")
	was, configured := m.run("sidemirror version"), m.tree("/etc/docker")
	m.during(net, "rpm-upgrade", func() {
		began := time.Now()
		out := m.run("rpm --upgrade --verbose --hash --nodeps " + inside(p.newRPM))
		t.Logf("the upgrade took %.2f s, and says:\n%s", time.Since(began).Seconds(), out)
		if n := spoken(out); n > 3 {
			t.Errorf("the scriptlets print %d lines", n)
		}
	})
	if is := m.run("sidemirror version"); is == was {
		t.Errorf("after the upgrade as before: %s", is)
	}
	if err := m.replaced(before); err != nil {
		t.Errorf("the upgrade did not restart the daemon: %v", err)
	}
	if now := m.property("sidemirror.socket", "ActiveEnterTimestampMonotonic"); now != socket {
		t.Error("the upgrade opened the sockets anew")
	}
	for _, d := range m.tree("/etc/docker").differences(configured) {
		t.Errorf("the upgrade changed %s", d)
	}
	if config := m.run("cat /etc/sidemirror/config.toml"); config != "# the administrator's\n" {
		t.Errorf("the upgrade wrote over the configuration: %s", config)
	}
	m.settled()
	m.through(net, "rpm-upgraded")
	m.reboot()
	m.through(net, "rpm-rebooted")

	m.step("disabled", func(t testing.TB) {
		m.run("systemctl disable --now sidemirror.socket sidemirror.service sidemirror-hosts.service")
		m.run("rpm --upgrade --replacepkgs --nodeps " + inside(p.newRPM))
		for _, unit := range ourUnits {
			if state := m.property(unit, "ActiveState"); state != "inactive" {
				t.Errorf("after an upgrade %s is %s", unit, state)
			}
		}
		m.directly(net, "rpm-disabled")
		m.run("systemctl enable --now sidemirror.socket sidemirror-hosts.service")
		m.through(net, "rpm-enabled")
	})

	m.run("rpm --erase sidemirror")
	m.erased(t, net, etc, all)
}

// spoken counts the lines that are not rpm's own.
func spoken(out string) int {
	lines := 0
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		rpms := line == "" || strings.Contains(line, "####") || strings.HasSuffix(line, "...") || strings.Contains(line, "warning: ")
		if !rpms {
			lines++
		}
	}
	return lines
}

// erased wants nothing to be left but what rpm keeps: it knows no purge.
func (m *machine) erased(t testing.TB, net *internet, etc, all tree) {
	if left := m.ours(); left != "" {
		t.Errorf("after the removal there runs %s", left)
	}
	kept := []string{
		"/etc/sidemirror",                                          // config.toml.rpmsave: it was edited
		"/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", // the user stays, as Fedora has it
		"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-",
	}
	for _, d := range m.tree("/etc").differences(etc, kept...) {
		t.Errorf("after the removal %s", d)
	}
	except := append(append(append([]string{}, others...), kept...),
		"/var/lib/sidemirror",          // the logins
		"/var/lib/sidemirror-logins",   // the encrypted ones
		"/var/lib/rpm", "/root/.rpmdb", // what rpm knows of packages
		"/usr/lib/sysimage/rpm", "/root", // the same, elsewhere
		// Folders that belong to the package "filesystem", where there is rpm.
		"/usr/share/licenses", "/usr/share/man/man1", "/usr/share/man/man5", "/usr/share/man/man8",
	)
	for _, d := range m.disk().differences(all, except...) {
		t.Errorf("after the removal %s", d)
	}
	m.directly(net, "rpm-erased")
}
