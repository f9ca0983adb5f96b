package boot

import (
	"context"
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
	m.run("ip link add site0 type bridge && ip address add " + onSite + "/24 dev site0 && ip link set site0 up")
	m.write("/etc/hosts", siteHosts(), 0o644)
	ca := m.startPebble()
	authority, err := os.ReadFile(ca.CA)
	if err != nil {
		t.Fatal(err)
	}
	m.write("/srv/acme.pem", string(authority), 0o644)
	// The internet of this machine is at the same ports, at another of its addresses.
	m.run("mkdir -p /etc/systemd/system/sidemirror-site.socket.d")
	m.write("/etc/systemd/system/sidemirror-site.socket.d/ports.conf", "[Socket]\nListenStream=\nListenStream="+onSite+":443\nListenStream="+onSite+":80\n", 0o644)
	net.public.Push(t, "library/alpine", "latest", shape(1<<16))

	m.run("cd /srv && apt-get install --yes ./sidemirror_*.deb")
	m.settled()
	const configuration = "cat /etc/sidemirror/config.toml"
	before := m.run(configuration)
	enable := "sidemirror site enable docker.example.com --accept-terms --acme-directory " + ca.Directory() + " --acme-ca /srv/acme.pem"
	m.run(enable)
	m.siteServes(t, ca)
	m.step("plain HTTP is redirected", func(t testing.TB) {
		out := m.run(`bash -c 'exec 3<>/dev/tcp/docker.example.com/80; printf "GET /v2/ HTTP/1.0\r\nHost: docker.example.com\r\n\r\n" >&3; cat <&3'`)
		if !strings.Contains(out, " 308 ") || !strings.Contains(out, "Location: https://docker.example.com/v2/") {
			t.Errorf("the response is\n%s", out)
		}
	})
	m.step("the site is there after a restart", func(t testing.TB) {
		m.run("systemctl restart sidemirror")
		m.siteServes(t, ca)
	})
	m.step("the site is there after a reboot", func(t testing.TB) {
		m.reboot()
		m.run("ip link show site0")
		m.siteServes(t, ca)
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
		if out := m.run("systemctl is-enabled sidemirror-site.socket || :"); strings.TrimSpace(out) != "disabled" {
			t.Errorf("the socket unit is %s", out)
		}
		m.run("docker pull --quiet library/alpine") // through sidemirror, as the engines of this host do
	})
	m.step("a purge removes a site that is enabled", func(t testing.TB) {
		m.run(enable)
		m.run("apt-get purge --yes sidemirror")
		m.siteIsClosed(t)
		// The drop-in is this test's.
		if left := m.run("find /etc/systemd /etc/sidemirror /var/lib/systemd /var/lib/sidemirror -name '*sidemirror*' ! -path '*/sidemirror-site.socket.d' 2>/dev/null || :"); left != "" {
			t.Errorf("left are\n%s", left)
		}
	})
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
