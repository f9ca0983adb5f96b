package boot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/pebble"
)

// onSite is the address of the machine to which the site's name leads: in a private network, as the
// hosts of a company are.
const onSite = "10.77.0.1"

// siteHosts are the machine's /etc/hosts, with the name of the site.
func siteHosts() string {
	return "127.0.0.1 localhost\n::1 localhost\n" + onSite + " docker.example.com\n" +
		outside + " " + strings.Replace(strings.Join(names, " "), "docker.example.com ", "", 1) + "\n"
}

// startPebble starts an ACME server at the machine's internet.
func (m *machine) startPebble() *pebble.Server {
	m.t.Helper()
	return pebble.Start(m.t, pebble.Options{
		Gateway: onSite, At: outside, Validity: 24 * time.Hour,
		Inside: []string{"nsenter", "--target", strconv.Itoa(m.holder), "--net"},
		Dial: func(_ context.Context, network, address string) (net.Conn, error) {
			return dialIn(m.holder, network, address)
		},
	})
}

// The commands are those of docs/site.md. Only the ACME server is another one.
func TestMirrorOnADomainIsServedInFiveCommands(t *testing.T) {
	t.Parallel()
	p := built(t)
	m, net := freshHost(t, trixie, p.deb)
	ca, enable := m.toSite()
	m.sitePorts("/etc")
	net.public.Push(t, "library/alpine", "latest", shape(1<<16))

	m.run("cd /srv && apt-get install --yes ./sidemirror_*.deb")
	m.settled()
	const configuration = "cat /etc/sidemirror/config.toml"
	before := m.run(configuration)
	m.run(enable)
	m.siteServes(t, ca)
	m.step("plain HTTP is redirected", m.redirects)
	m.step("users log in", func(t testing.TB) { m.usersLogIn(t, enable) })
	m.step("the site is there after a restart", func(t testing.TB) {
		m.run("systemctl restart sidemirror")
		m.siteServes(t, ca)
	})
	m.step("the site is there after a reboot", func(t testing.TB) {
		m.reboot()
		m.siteServes(t, ca)
		m.redirects(t)
	})
	m.step("disable gives the configuration back and closes the ports", func(t testing.TB) {
		m.run("sidemirror site disable")
		if after := m.run(configuration); after != before {
			t.Errorf("the configuration is\n%s\nand was\n%s", after, before)
		}
		m.siteIsClosed(t)
		if out, err := m.try("sidemirror site status"); err == nil {
			t.Errorf("site status prints\n%s", out)
		}
		if out := m.run("systemctl is-enabled sidemirror-site.socket sidemirror-site-http.socket || :"); out != "disabled\ndisabled\n" {
			t.Errorf("the socket units are %s", out)
		}
		m.run("docker pull --quiet library/alpine") // through sidemirror, as the engines of this host do
	})
	m.step("a purge removes a site that is enabled", func(t testing.TB) {
		m.run(enable)
		m.run("printf %s 'secret of dave' | sidemirror site user add dave --password-stdin")
		m.run("apt-get purge --yes sidemirror")
		m.siteIsClosed(t)
		if left := m.run("ls /etc/sidemirror 2>/dev/null || :"); left != "" {
			t.Errorf("left in /etc/sidemirror are\n%s", left)
		}
		// The drop-ins are this test's.
		if left := m.run("find /etc/systemd /etc/sidemirror /var/lib/systemd /var/lib/sidemirror -name '*sidemirror*' ! -path '*/sidemirror-site*.socket.d' 2>/dev/null || :"); left != "" {
			t.Errorf("left are\n%s", left)
		}
	})
}

// toSite gives the machine the address of the site, an ACME server and its authority. It returns the
// command that serves the site.
func (m *machine) toSite() (ca *pebble.Server, enable string) {
	m.t.Helper()
	m.run("ip link add site0 type bridge && ip address add " + onSite + "/24 dev site0 && ip link set site0 up")
	m.write("/etc/hosts", siteHosts(), 0o644)
	m.run("systemctl restart docker.service") // Go's resolver remembers the former file for five seconds
	ca = m.startPebble()
	authority, err := os.ReadFile(ca.CA)
	if err != nil {
		m.t.Fatal(err)
	}
	m.write("/srv/acme.pem", string(authority), 0o644)
	return ca, "sidemirror site enable docker.example.com --accept-terms --acme-directory " + ca.Directory() + " --acme-ca /srv/acme.pem"
}

// sitePorts lets systemd open the ports of the site at one address. The internet of the machine has the
// same ports, at another one.
func (m *machine) sitePorts(in string) {
	m.t.Helper()
	for unit, port := range map[string]string{"sidemirror-site.socket": "443", "sidemirror-site-http.socket": "80"} {
		folder := in + "/systemd/system/" + unit + ".d"
		m.run("mkdir -p " + folder + " && printf '[Socket]\\nListenStream=\\nListenStream=%s\\n' " + onSite + ":" + port + " >" + folder + "/ports.conf")
	}
}

// redirects checks that plain HTTP is redirected to the site.
func (m *machine) redirects(t testing.TB) {
	t.Helper()
	out := m.run(`bash -c 'exec 3<>/dev/tcp/docker.example.com/80; printf "GET /v2/ HTTP/1.0\r\nHost: docker.example.com\r\n\r\n" >&3; cat <&3'`)
	if !strings.Contains(out, " 308 ") || !strings.Contains(out, "Location: https://docker.example.com/v2/") {
		t.Errorf("the response is\n%s", out)
	}
}

// usersLogIn adds a user, who logs in with docker, and removes the user.
func (m *machine) usersLogIn(t testing.TB, enable string) {
	t.Helper()
	const (
		file  = "/etc/sidemirror/site.htpasswd"
		image = "docker.example.com/library/alpine"
		pull  = "docker rmi --force " + image + " >/dev/null 2>&1; docker pull --quiet " + image
	)
	logIn := func(password string) error {
		_, err := m.try("printf %s '" + password + "' | docker login -u carol --password-stdin docker.example.com")
		return err
	}
	out := m.run("printf %s 'secret of carol' | sidemirror site user add carol --password-stdin")
	if !strings.Contains(out, "visitors must log in") {
		t.Errorf("add prints\n%s", out)
	}
	if out := m.run("stat --format '%U:%G %a' " + file); out != "root:sidemirror 640\n" {
		t.Errorf("the file has %s", out)
	}
	m.eventually("no visitor is served without a login", func() error {
		if _, err := m.try(pull); err == nil {
			return errors.New("docker pulls")
		}
		return nil
	})
	m.eventually("the user logs in", func() error { return logIn("secret of carol") })
	m.run(pull)
	m.run(enable) // which leaves the users in force
	m.eventually("docker pulls with its login", func() error { _, err := m.try(pull); return err })
	if logIn("a guess") == nil {
		t.Error("a wrong password is accepted")
	}
	if err := logIn("secret of carol"); err != nil {
		t.Error(err)
	}
	m.run("sidemirror site user remove carol")
	m.eventually("the user's login is refused", func() error {
		if logIn("secret of carol") == nil {
			return errors.New("docker logs in")
		}
		return nil
	})
	if out, err := m.try(pull); err == nil {
		t.Errorf("a user who is removed pulls\n%s", out)
	}
	m.run("docker pull --quiet library/alpine") // as the engines of this host do
	m.run("docker logout docker.example.com; rm " + file + "; sidemirror site disable && " + enable)
}

// Another program has port 80, or port 443. The first takes nothing from the site except the redirect;
// the second is a clear problem, and none of the engines of this host.
func TestSiteIsServedThoughAnotherProgramHasPort80(t *testing.T) {
	t.Parallel()
	p := built(t)
	m, net := freshHost(t, trixie, p.deb)
	ca, enable := m.toSite()
	m.sitePorts("/etc")
	net.public.Push(t, "library/alpine", "latest", shape(1<<16))
	m.run("dpkg --install " + inside(p.deb))
	m.settled()
	for _, port := range []string{"80", "443"} {
		m.write("/etc/systemd/system/web"+port+".socket", "[Socket]\nListenStream="+onSite+":"+port+"\nService=web.service\n", 0o644)
	}
	m.write("/etc/systemd/system/web.service", "[Service]\nExecStart=/bin/sleep infinity\n", 0o644)
	const units = "sidemirror-site.socket sidemirror-site-http.socket"
	enabled := func(t testing.TB, want string) {
		t.Helper()
		if out := m.run("systemctl is-enabled " + units + " || :"); strings.Join(strings.Fields(out), " ") != want {
			t.Errorf("the units are %q, want %q", out, want)
		}
	}

	m.step("port 80 is taken", func(t testing.TB) {
		m.run("systemctl daemon-reload && systemctl start web80.socket")
		out := m.run(enable)
		if !strings.Contains(out, "note: port 80 is taken by ") || !strings.Contains(out, "TLS-ALPN-01") {
			t.Errorf("enable prints\n%s", out)
		}
		m.siteServes(t, ca)
		if out := m.run("sidemirror site status"); !strings.Contains(out, "note: port 80 is taken by ") {
			t.Errorf("site status prints\n%s", out)
		}
		enabled(t, "enabled disabled")
		m.run("systemctl restart sidemirror && systemctl is-active web80.socket")
		m.siteServes(t, ca)
		if failed := m.run("systemctl --failed --quiet"); failed != "" {
			t.Errorf("failed are\n%s", failed)
		}
	})
	m.step("port 80 is free again", func(t testing.TB) {
		m.run("systemctl stop web80.socket")
		// The hint's.
		m.run("systemctl enable sidemirror-site-http.socket && systemctl restart sidemirror.service")
		m.redirects(t)
		m.siteServes(t, ca)
		if out := m.run("sidemirror site status"); strings.Contains(out, "note:") {
			t.Errorf("site status prints\n%s", out)
		}
	})
	m.step("port 443 is taken", func(t testing.TB) {
		m.run("sidemirror site disable && systemctl start web443.socket")
		out, err := m.try(enable)
		if err == nil || !strings.Contains(out, "port 443 is taken by ") {
			t.Errorf("enable prints\n%s", out)
		}
		m.eventually("site status has the problem", func() error {
			out, err := m.try("sidemirror site status")
			if err == nil || !strings.Contains(out, "port 443 is taken by ") {
				return fmt.Errorf("it prints\n%s", out)
			}
			return nil
		})
		m.run("docker pull --quiet library/alpine && docker rmi library/alpine")
		m.run("systemctl stop web443.socket && systemctl restart sidemirror.service")
		m.siteServes(t, ca)
		enabled(t, "enabled enabled")
	})
	m.step("the program that has port 443 is a reverse proxy", func(t testing.TB) {
		m.run("systemctl stop sidemirror.service " + units + " && systemctl start web80.socket web443.socket && systemctl start sidemirror.service")
		m.run("sidemirror site enable docker.example.com --behind-proxy --trusted-proxy 127.0.0.1 --listen 127.0.0.1:8305")
		enabled(t, "disabled disabled")
		served := func() error {
			out, err := m.try(`bash -c 'exec 3<>/dev/tcp/127.0.0.1/8305; printf "GET /v2/ HTTP/1.0\r\nHost: docker.example.com\r\nX-Forwarded-For: 10.77.0.9\r\nX-Forwarded-Proto: https\r\n\r\n" >&3; cat <&3'`)
			if err == nil && !strings.Contains(out, "https://docker.example.com/v2/auth") {
				err = fmt.Errorf("the response is\n%s", out)
			}
			return err
		}
		m.eventually("the site is served there", served)
		m.reboot()
		m.eventually("the site is served after a boot, although no engine has pulled", served)
		if out := m.run("sidemirror site status"); !strings.Contains(out, "127.0.0.1:8305") {
			t.Errorf("site status prints\n%s", out)
		}
		m.run("systemctl stop web80.socket web443.socket && sidemirror site disable && " + enable)
		m.siteServes(t, ca)
		enabled(t, "enabled enabled")
	})
	m.step("both are taken at a restart", func(t testing.TB) {
		m.run("systemctl stop sidemirror.service " + units + " && systemctl start web80.socket web443.socket && systemctl start sidemirror.service")
		m.run("docker pull --quiet library/alpine")
		m.eventually("status has the problem", func() error {
			out, err := m.try("sidemirror status")
			if err == nil || !strings.Contains(out, "port 443 is taken by ") {
				return fmt.Errorf("it prints\n%s", out)
			}
			return nil
		})
	})
}

// A former version had both ports in one unit.
func TestUpgradeKeepsBothPortsOfASite(t *testing.T) {
	t.Parallel()
	p := built(t)
	m, net := freshHost(t, trixie, p.deb, p.newDeb)
	ca, enable := m.toSite()
	net.public.Push(t, "library/alpine", "latest", shape(1<<16))
	m.run("dpkg --install " + inside(p.deb))
	m.settled()
	const unit = "/usr/lib/systemd/system/sidemirror-site.socket"
	m.run("rm /usr/lib/systemd/system/sidemirror-site-http.socket && sed -i 's/^ListenStream=443$/&\\nListenStream=80/' " + unit)
	// A drop-in in /run is no choice of the administrator's.
	m.sitePorts("/run")
	const folder = "/run/systemd/system/sidemirror-site"
	m.run("cat " + folder + "-http.socket.d/ports.conf | sed 's/^ListenStream=$//' >>" + folder + ".socket.d/ports.conf && rm -r " + folder + "-http.socket.d && systemctl daemon-reload")
	m.run(enable)
	m.siteServes(t, ca)
	m.redirects(t)
	m.sitePorts("/run")
	m.run("dpkg --force-confold --install " + inside(p.newDeb))
	m.siteServes(t, ca)
	m.redirects(t)
	if out := m.run("systemctl is-enabled sidemirror-site.socket sidemirror-site-http.socket"); out != "enabled\nenabled\n" {
		t.Errorf("the units are %s", out)
	}
	m.run("sidemirror site disable")
	m.siteIsClosed(t)
}

// siteIsClosed fails the test if the site's port is open.
func (m *machine) siteIsClosed(t testing.TB) {
	t.Helper()
	if out, err := m.try(`bash -c 'exec 3<>/dev/tcp/docker.example.com/443'`); err == nil {
		t.Errorf("port 443 is open: %s", out)
	}
}

// siteServes waits until the site has its certificate, and pulls from it as another host does that
// trusts the authority.
func (m *machine) siteServes(t testing.TB, ca *pebble.Server) {
	t.Helper()
	m.eventually("the site has a certificate", func() error {
		out, err := m.try("sidemirror site status")
		if err == nil && (!strings.Contains(out, "docker.example.com: until ") || !strings.Contains(out, onSite+":443")) {
			err = fmt.Errorf("site status prints\n%s", out)
		}
		return err
	})
	m.run("mkdir -p /etc/docker/certs.d/docker.example.com")
	m.write("/etc/docker/certs.d/docker.example.com/ca.crt", string(ca.Root()), 0o644)
	m.run("docker rmi --force docker.example.com/library/alpine docker.example.com/alpine >/dev/null 2>&1; " +
		"docker pull --quiet docker.example.com/library/alpine && docker pull --quiet docker.example.com/alpine")
}
