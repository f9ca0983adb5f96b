package boot

import (
	"regexp"
	"strings"
	"testing"
)

// Where no systemd runs, or a policy forbids to start anything, as while images are
// built, the package is files and nothing more, and goes again as it came.
func TestLeftInPeace(t *testing.T) {
	t.Parallel()
	p := built(t)
	for _, c := range []struct {
		name   string
		booted bool
		policy bool
	}{
		{"in a chroot", false, false},
		{"in a chroot with a policy", false, true},
		{"on a booted host with a policy", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, trixie)
			m.readCerts()
			m.carry(p.deb, p.newDeb)
			if c.policy {
				m.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
			}
			if c.booted {
				m.boot()
			}
			etc, all := m.tree("/etc"), m.disk()
			engines := m.tree("/etc/containerd")
			for _, deb := range []string{p.deb, p.newDeb} {
				out := m.run("dpkg --install " + inside(deb))
				if said := postinst(out); said[0] != "" {
					t.Errorf("it speaks: %q", said)
				}
				for _, d := range m.tree("/etc/containerd").differences(engines) {
					t.Errorf("it configures: %s", d)
				}
				if running := m.ours(); running != "" {
					t.Errorf("it starts %s", running)
				}
			}
			m.run("dpkg --remove sidemirror")
			m.run("dpkg --purge sidemirror")
			for _, d := range m.tree("/etc").differences(etc, "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-") {
				t.Errorf("after the purge %s", d)
			}
			for _, d := range m.disk().differences(all, others...) {
				t.Errorf("after the purge %s", d)
			}
		})
	}
}

// An installation may meet a host that is not as it should be, or be killed. It is
// repeated, and all is well.
func TestHalfFailed(t *testing.T) {
	t.Parallel()
	p := built(t)
	m, net := freshHost(t, trixie, p.deb)
	etc := m.tree("/etc")

	m.step("killed scripts", func(t testing.TB) { m.killedScripts(t, net) })
	m.run("dpkg --purge sidemirror")
	m.step("invalid daemon.json", func(t testing.TB) { m.invalidJSON(t, net, p) })
	m.run("dpkg --purge sidemirror")
	m.step("immutable", func(t testing.TB) { m.immutable(t, net, p) })
	m.run("dpkg --purge sidemirror")
	for _, d := range m.tree("/etc").differences(etc, "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-") {
		t.Errorf("after all that %s", d)
	}
}

// killedScripts installs a package again and again, whose postinst is killed after
// each of its commands in turn, then the real one; and removes it with a prerm that
// is killed.
func (m *machine) killedScripts(t testing.TB, net *internet) {
	m.run(`mkdir /srv/kill && dpkg-deb --raw-extract /srv/sidemirror_*.deb /srv/kill/whole`)
	kills := 0
	for _, script := range []string{"postinst", "prerm"} {
		for _, command := range killPoints[script] {
			body, found := killBefore(m.run("cat /srv/kill/whole/DEBIAN/"+script), command)
			if !found {
				t.Errorf("%s has no %q any more", script, command)
				continue
			}
			m.run("rm -rf /srv/kill/half && cp -a /srv/kill/whole /srv/kill/half")
			m.write("/srv/kill/half/DEBIAN/"+script, body, 0o755)
			m.run("dpkg-deb --build -Znone /srv/kill/half /srv/kill/half.deb")
			_, err := m.try("dpkg --install /srv/kill/half.deb")
			if script == "prerm" {
				if err != nil {
					t.Error(err)
				}
				_, err = m.try("dpkg --remove sidemirror")
			}
			if err == nil || !strings.Contains(err.Error(), "killed by signal") {
				t.Errorf("%s was not killed before %q: %v", script, command, err)
			}
			kills++
			m.run("dpkg --install /srv/sidemirror_*.deb")
		}
	}
	t.Logf("%d installations and removals were killed", kills)
	m.settled()
	m.login(net)
	m.through(net, "repeated")
	m.run("rm -r /srv/kill")
}

// killBefore puts a kill before the last line of a script that begins with a command,
// which is where the command is called, and not where it is defined.
func killBefore(script, command string) (string, bool) {
	found := regexp.MustCompile(`(?m)^\t*`+regexp.QuoteMeta(command)).FindAllStringIndex(script, -1)
	if found == nil {
		return "", false
	}
	at := found[len(found)-1][0]
	return script[:at] + "kill -KILL $$\n" + script[at:], true
}

// killPoints are commands of the maintainer scripts before which they are killed.
var killPoints = map[string][]string{
	"postinst": {"make_user", "for unit in", "quiet systemctl --system daemon-reload", "start_all", "first_contact"},
	"prerm":    {"stop_all", "give_back"},
}

// invalidJSON meets a file that is not valid: it stays as it is, everything else is configured, and
// the file is reported.
func (m *machine) invalidJSON(t testing.TB, net *internet, p packages) {
	const broken = "{ \"log-driver\": \"json-file\", }\n"
	m.write("/etc/docker/daemon.json", broken, 0o640)
	out := m.run("dpkg --install " + inside(p.deb))
	t.Logf("it says:\n%s", strings.Join(postinst(out), "\n"))
	if said := strings.Join(postinst(out), "\n"); !strings.Contains(said, "daemon.json") && !strings.Contains(said, "sidemirror status") || strings.Count(said, "\n") > 2 {
		t.Errorf("the postinst does not say in three lines what is wrong:\n%s", out)
	}
	m.eventually("containerd is configured", func() error { return m.configured("/etc/containerd/certs.d/ghcr.io/hosts.toml") })
	if now := m.run("cat /etc/docker/daemon.json"); now != broken {
		t.Errorf("daemon.json was written: %s", now)
	}
	if status := m.status(""); !strings.Contains(status, "/etc/docker/daemon.json") {
		t.Errorf("status does not name the file:\n%s", status)
	}
	m.write("/etc/docker/daemon.json", daemonJSON, 0o640)
	m.eventually("Docker is configured, once its file is fixed", func() error { return m.configured("/etc/docker/daemon.json") })
}

// immutable meets a file that cannot be written, and then one that cannot be given
// back: the package is removable nevertheless, and says where the old bytes are.
func (m *machine) immutable(t testing.TB, net *internet, p packages) {
	const file = "/etc/docker/daemon.json"
	m.run("chattr +i " + file)
	defer m.run("chattr -i " + file)
	out := m.run("dpkg --install " + inside(p.deb))
	t.Logf("it says:\n%s", strings.Join(postinst(out), "\n"))
	m.eventually("containerd is configured", func() error { return m.configured("/etc/containerd/certs.d/ghcr.io/hosts.toml") })
	if said := strings.Join(postinst(out), "\n"); strings.Contains(said, "docker and") {
		t.Errorf("the postinst says that Docker pulls through us, which it cannot:\n%s\n%s", said, m.status(""))
	}
	m.run("chattr -i " + file)
	m.run("systemctl restart sidemirror-hosts.service")
	m.eventually("Docker is configured, once its file is free", func() error { return m.configured(file) })

	m.run("chattr +i " + file)
	out = m.run("dpkg --remove sidemirror")
	if !strings.Contains(out, file) || !strings.Contains(out, "/var/lib/sidemirror-hosts") {
		t.Errorf("the removal does not say what is not given back, and where it is:\n%s", out)
	}
	if left := m.ours(); left != "" {
		t.Errorf("after the removal there runs %s", left)
	}
	m.run("test -s /var/lib/sidemirror-hosts/journal.json")
	m.run("chattr -i " + file)
	// Installing and removing it once more, as it says, restores the file.
	m.run("dpkg --install " + inside(p.deb))
	m.run("dpkg --remove sidemirror")
	if now := m.run("cat " + file); now != daemonJSON {
		t.Errorf("daemon.json was not given back: %s", now)
	}
}
