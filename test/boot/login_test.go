package boot

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/registry"
)

const (
	loginFolder = "/var/lib/sidemirror-logins"
	ghcrLogin   = loginFolder + "/registry-" + ghcr + ".cred"
	plainLogins = "/var/lib/sidemirror/credentials.json"
)

// Logins are encrypted by the real systemd-creds with the host's key, since these machines have no
// TPM.
func TestLoginsAreEncryptedOnDisk(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			p := built(t)
			m, net := freshHost(t, s, p.deb)
			m.run("dpkg --install " + inside(p.deb))
			m.settled()
			m.step("the running service uses a new login", func(t testing.TB) { m.encrypted(t, net) })
			m.step("a service that starts decrypts the logins", func(t testing.TB) {
				m.run("systemctl restart sidemirror.service")
				m.through(net, "restarted")
				m.noPassword(t, net)
			})
			m.step("a login that cannot be decrypted", func(t testing.TB) { m.damaged(t, net) })
			m.step("logout", func(t testing.TB) { m.loggedOut(t, net) })
			m.step("a host that cannot encrypt", func(t testing.TB) { m.unencrypted(t, net) })
			m.step("purge", func(t testing.TB) {
				m.login(net)
				m.run("apt-get purge --yes --quiet sidemirror")
				if left := m.run("find /var/lib /run /etc -xdev -name '*sidemirror*' -not -path '/var/lib/dpkg/*' -not -path '/var/lib/systemd/*' -not -path '/run/systemd/*'"); left != "" {
					t.Errorf("after the purge there is\n%s", left)
				}
			})
		})
	}
}

func (m *machine) encrypted(t testing.TB, net *internet) {
	before := m.property("sidemirror.service", "MainPID")
	m.login(net)
	m.through(net, "encrypted")
	if after := m.property("sidemirror.service", "MainPID"); after != before || after == "0" {
		t.Errorf("the service was restarted: process %s, then %s", before, after)
	}
	if out := m.run("systemd-creds decrypt --name=registry-" + ghcr + " " + ghcrLogin + " -"); !strings.Contains(out, `"auths"`) {
		t.Errorf("root decrypts %s", out)
	}
	if mode := m.run("stat --format=%a:%U " + loginFolder + " " + ghcrLogin); mode != "700:root\n600:root\n" {
		t.Errorf("the folder and the login are %s", mode)
	}
	if out := m.run("stat --file-system --format=%T /run/sidemirror/credentials.json; stat --format=%a:%U /run/sidemirror/credentials.json"); out != "tmpfs\n600:sidemirror\n" {
		t.Errorf("the decrypted logins are %s", out)
	}
	m.noPassword(t, net)
}

// noPassword looks for the password, and for its base64 in a login, on the machine's disk.
func (m *machine) noPassword(t testing.TB, net *internet) {
	t.Helper()
	find := func() string {
		out, _ := m.try(fmt.Sprintf("grep --recursive --files-with-matches --fixed-strings -e %s -e %s /etc /var/lib/sidemirror /var/lib/sidemirror-logins /var/cache /var/log",
			net.private.Password, base64.StdEncoding.EncodeToString([]byte(net.private.User+":"+net.private.Password))))
		return out
	}
	m.write("/etc/trial", net.private.Password, 0o600)
	if out := find(); out != "/etc/trial\n" {
		t.Errorf("a search for the password finds %q", out)
	}
	m.run("rm /etc/trial")
}

// damaged has the machine's key exchanged, as on a clone of a machine, for one registry's login.
func (m *machine) damaged(t testing.TB, net *internet) {
	m.write(ghcrLogin, "bm90IGEgY3JlZGVudGlhbA==\n", 0o600)
	m.run("systemctl restart sidemirror.service")
	net.private.Push(t, "alice/other", "v1", registry.Shape{Size: 1 << 16})
	net.public.Push(t, "acme/public", "v1", registry.Shape{Size: 1 << 16})
	if err := pullers[0].pull(m, reference(hub, "alice/other")); err != nil {
		t.Errorf("the other registry: %v", err)
	}
	if err := m.criPull(reference(ghcr, "acme/public")); err != nil {
		t.Errorf("a public image of the registry: %v", err)
	}
	if ours, direct := net.visits(ghcr, "acme/public"); ours < 4 || direct != 0 {
		t.Errorf("the registry saw %d requests of ours and %d of containerd's own", ours, direct)
	}
	says := "sidemirror login " + ghcr
	m.eventually("status names the login", func() error {
		if out := m.status(""); !strings.Contains(out, says) {
			return fmt.Errorf("status does not have %q:\n%s", says, out)
		}
		return nil
	})
	if log := strings.Join(m.journal("sidemirror.service"), "\n"); !strings.Contains(log, says) {
		t.Errorf("the log does not name it:\n%s", log)
	}
	m.login(net)
	m.through(net, "again")
	m.eventually("status has no problem", func() error {
		if out := m.status(""); strings.Contains(out, says) {
			return fmt.Errorf("after another login:\n%s", out)
		}
		return nil
	})
}

func (m *machine) loggedOut(t testing.TB, net *internet) {
	if out := m.run("sidemirror logout " + ghcr); out != "logged out of "+ghcr+"\n" {
		t.Errorf("logout prints %q", out)
	}
	if out := m.run("sidemirror logout " + ghcr); out != "not logged in to "+ghcr+"\n" {
		t.Errorf("another logout prints %q", out)
	}
	private := func(name string) {
		net.private.Push(t, "alice/"+name, "v1", registry.Shape{Size: 1 << 16})
		if err := m.criPull(reference(ghcr, "alice/"+name)); err == nil {
			t.Error("a private image can be pulled after the logout")
		}
	}
	private("logged-out")
	m.run("systemctl restart sidemirror.service")
	private("logged-out-restarted")
}

func (m *machine) unencrypted(t testing.TB, net *internet) {
	m.run("mv /usr/bin/systemd-creds /srv")
	out, err := m.tryWith(net.private.Password, "sidemirror login "+ghcr+" --username "+net.private.User+" --password-stdin")
	if err != nil || !strings.Contains(out, "note") || !strings.Contains(out, "unencrypted") || !strings.Contains(out, plainLogins) {
		t.Errorf("login prints %s, %v", out, err)
	}
	if mode := m.run("stat --format=%a:%U " + plainLogins); mode != "600:sidemirror\n" {
		t.Errorf("the login is %s", mode)
	}
	m.run("mv /srv/systemd-creds /usr/bin")
	net.private.Push(t, "alice/unencrypted", "v1", registry.Shape{Size: 1 << 16})
	if err := m.criPull(reference(ghcr, "alice/unencrypted")); err != nil {
		t.Error(err)
	}
	// A later login moves it, and its note is no more.
	m.login(net)
	if out, _ := m.try("cat " + plainLogins); strings.Contains(out, ghcr) {
		t.Errorf("the unencrypted login still is there: %s", out)
	}
}
