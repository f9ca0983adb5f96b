package boot

import (
	"strings"
	"testing"
	"time"
)

// The life of a package, from a fresh host to the fresh host again.
func TestInstallPullRebootRemovePurge(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			p := built(t)
			m, net := freshHost(t, s, p.deb)
			etc, all := m.tree("/etc"), m.disk()
			failed := m.failed()
			m.directly(net, "before")

			installed(t, m, inside(p.deb), failed)
			m.login(net)
			m.through(net, "fresh")
			rebooted(t, m, net, failed)
			removed(t, m, net, etc)
			purged(t, m, inside(p.deb), etc, all)
		})
	}
}

// installed installs the package and looks at what that has done.
func installed(t *testing.T, m *machine, deb string, failed []string) {
	began := time.Now()
	out := m.run("apt-get install --yes --no-install-recommends --quiet " + deb)
	took := time.Since(began)
	lines := postinst(out)
	t.Logf("installed in %.2f s, and says:\n%s", took.Seconds(), strings.Join(lines, "\n"))
	if len(lines) == 0 || len(lines) > 3 {
		t.Errorf("the postinst prints %d lines:\n%s", len(lines), out)
	}
	for _, unit := range ourUnits {
		m.eventually(unit+" is active", func() error { return m.active(unit) })
	}
	for _, file := range []string{"/etc/docker/daemon.json", "/etc/containerd/certs.d/ghcr.io/hosts.toml"} {
		m.eventually(file+" is configured", func() error { return m.configured(file) })
	}
	t.Logf("configured %.2f s after the start of the installation", time.Since(began).Seconds())
	if later := strings.TrimSpace(m.status("--short")); later != strings.Join(lines, "\n") {
		t.Errorf("the postinst says\n%q\nand status later\n%q", strings.Join(lines, "\n"), later)
	}
	for unit, want := range map[string]string{"sidemirror.socket": "enabled", "sidemirror-hosts.service": "enabled", "sidemirror.service": "indirect"} {
		if state := m.property(unit, "UnitFileState"); state != want {
			t.Errorf("%s is %s, not %s", unit, state, want)
		}
	}
	if now := m.failed(); strings.Join(now, " ") != strings.Join(failed, " ") {
		t.Errorf("units have failed: %q, before the installation %q", now, failed)
	}
	m.run("systemd-analyze verify --man=no sidemirror.socket sidemirror.service sidemirror-hosts.service")
	for unit, most := range map[string]string{"sidemirror.service": "1.5", "sidemirror-hosts.service": "1.0"} {
		exposure(t, m, unit, most)
	}
}

// postinst is what an installation prints of its own, without dpkg's words.
func postinst(out string) []string {
	out = strings.ReplaceAll(out, "\r\n", "\n") // apt gives dpkg a terminal
	_, out, _ = strings.Cut(out, "Setting up sidemirror")
	_, out, _ = strings.Cut(out, "\n")
	out, _, _ = strings.Cut(out, "Processing triggers for")
	return strings.Split(strings.TrimSpace(out), "\n")
}

// exposure asks systemd for a unit's, as it runs.
func exposure(t *testing.T, m *machine, unit, most string) {
	t.Helper()
	out := m.run("systemd-analyze security --no-pager " + unit)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	t.Log(lines[len(lines)-1])
	threshold := strings.ReplaceAll(most, ".", "")
	m.run("systemd-analyze security --no-pager --threshold=" + threshold + " " + unit)
}

// rebooted starts the machine anew, and wants all to be as before.
func rebooted(t *testing.T, m *machine, net *internet, failed []string) {
	m.reboot()
	if now := m.failed(); strings.Join(now, " ") != strings.Join(failed, " ") {
		t.Errorf("after a reboot units have failed: %q, before the installation %q", now, failed)
	}
	for _, unit := range []string{"docker.service", "containerd.service", "sidemirror.socket", "sidemirror-hosts.service"} {
		t.Logf("%s took %v to start", unit, m.startTime(unit))
	}
	t.Logf("critical chain after the reboot:\n%s", m.run("systemd-analyze critical-chain --no-pager multi-user.target docker.service"))
	m.through(net, "rebooted")
	t.Logf("status:\n%s", m.status(""))
}

// removed removes the package, and expects the host as it was, except what Debian keeps until a
// purge.
func removed(t *testing.T, m *machine, net *internet, etc tree) {
	t.Logf("removal:\n%s", m.run("apt-get remove --yes --quiet sidemirror"))
	for _, d := range m.tree("/etc").differences(etc,
		"/etc/systemd/system/sockets.target.wants/sidemirror.socket",           // whether it was enabled,
		"/etc/systemd/system/multi-user.target.wants/sidemirror-hosts.service", // which counts when it is installed again
		"/etc/sidemirror",                                          // the configuration, which is the administrator's
		"/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", // the user, who owns the cache
		"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", // their backups
	) {
		t.Errorf("after the removal %s", d)
	}
	if left := m.ours(); left != "" {
		t.Errorf("after the removal there runs %s", left)
	}
	for _, unit := range ourUnits {
		if state := m.property(unit, "LoadState"); state != "not-found" {
			t.Errorf("after the removal %s is %s", unit, state)
		}
	}
	// By its own word, not by what it does: with our address still in it a pull would
	// succeed as well.
	if mirrors := m.run("docker info --format '{{.RegistryConfig.Mirrors}}'"); strings.TrimSpace(mirrors) != "[]" {
		t.Errorf("after the removal Docker has the mirrors %s", mirrors)
	}
	m.directly(net, "removed")
	if failed := m.failed(); strings.Contains(strings.Join(failed, " "), "sidemirror") {
		t.Errorf("after the removal units have failed: %q", failed)
	}
}

// purged installs the package again and purges it, and wants nothing to be left.
func purged(t *testing.T, m *machine, deb string, etc, all tree) {
	m.run("dpkg --install " + deb)
	for _, unit := range ourUnits {
		m.eventually(unit+" is active again", func() error { return m.active(unit) })
	}
	m.run("apt-get purge --yes --quiet sidemirror")
	for _, d := range m.tree("/etc").differences(etc,
		"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", // backups, written by who removes a user
	) {
		t.Errorf("after the purge %s", d)
	}
	for _, d := range m.disk().differences(all, others...) {
		t.Errorf("after the purge %s", d)
	}
	if out, err := m.try("getent passwd sidemirror || getent group sidemirror"); err == nil {
		t.Errorf("after the purge there is %s", out)
	}
}

// others are the files that other programs write during an installation.
var others = []string{
	"/etc",                                                  // compared by content
	"/var/log/journal", "/var/log/apt", "/var/log/dpkg.log", // logs
	"/var/log/wtmp", "/var/log/wtmp.db", "/var/log/lastlog", // of boots
	"/var/lib/dpkg",                                        // what dpkg knows of packages
	"/var/lib/apt", "/var/cache/apt", "/var/cache/debconf", // what apt knows of them
	"/var/lib/systemd", "/var/lib/private", // timers and such, of every boot
	"/var/tmp/systemd-private-*", "/tmp/systemd-private-*", // folders of services that run
	"/root/.docker", // the docker client's
}
