package boot

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// A host whose only way to registries is a forward proxy with a login, which the engines' units name.
func TestForwardProxyOfTheEngines(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			p := built(t)
			m := newMachine(t, s)
			net := connect(t, m)
			m.readCerts()
			m.write("/etc/docker/daemon.json", daemonJSON, 0o640)
			m.carry(p.deb)
			m.behindProxy()
			m.engineProxy(proxyURL)
			proxy := m.startProxy()
			m.boot()
			etc, all := m.tree("/etc"), m.disk()
			m.directly(net, "without-sidemirror")

			m.run("dpkg --install " + inside(p.deb))
			m.settled()
			took := m.eventually("the engines' proxy is used", func() error { return m.outboundIs("docker.service") })
			t.Logf("the engines' proxy is used %.2f s after the installation", took.Seconds())
			m.login(net) // which asks through the proxy, too
			m.through(net, "proxied")
			m.healthy()
			m.step("shown without the login", func(t testing.TB) { m.proxyIsSecret(t) })
			m.step("a change is followed", func(t testing.TB) { m.proxyChanges(t) })
			m.step("not adopted", func(t testing.TB) { m.proxyNotAdopted(t, net) })

			proxy.Stop()
			for _, p := range pullers {
				net.public.Push(t, "acme/dead-"+p.name, "v1", shape(1<<16))
				if err := p.pull(m, reference(hub, "acme/dead-"+p.name)); err == nil {
					t.Errorf("%s pulls while the proxy is dead", p.name)
				}
			}
			m.startProxy()
			m.through(net, "proxy-is-back")
			purged(t, m, inside(p.deb), etc, all)
			if out := m.run("ls /run | grep sidemirror || :"); out != "" {
				t.Errorf("after the purge there is /run/%s", out)
			}
		})
	}
}

// outboundIs reports whether status shows a forward proxy that is set there; "" for none.
func (m *machine) outboundIs(from string) error {
	m.t.Helper()
	var shown struct {
		Outbound struct {
			HTTPSProxy string `json:"https_proxy"`
			NoProxy    string `json:"no_proxy"`
			From       string `json:"from"`
		}
	}
	if err := json.Unmarshal([]byte(m.status("--json")), &shown); err != nil {
		return err
	}
	if shown.Outbound.From != from {
		return fmt.Errorf("the proxy is that of %q, and should be that of %q", shown.Outbound.From, from)
	}
	return nil
}

// proxyIsSecret looks for the password wherever people or other users may look.
func (m *machine) proxyIsSecret(t testing.TB) {
	status := m.status("")
	if want := "outbound    https through http://xxxxx:xxxxx@" + forwardProxy + " (docker.service); directly: 10.0.0.0/8, .internal.example\n"; !strings.Contains(status, want) {
		t.Errorf("status is\n%s", status)
	}
	plan, _ := m.try("sidemirror plan")
	for name, text := range map[string]string{
		"status": status, "status --json": m.status("--json"), "plan": plan, "config show": m.run("sidemirror config show"),
		"the journal": strings.Join(append(m.journal("sidemirror.service"), m.journal("sidemirror-hosts.service")...), "\n"),
		"the state":   m.run("cat /run/sidemirror/state.json"),
		"systemd":     m.run("systemctl show sidemirror.service sidemirror-hosts.service"),
	} {
		if strings.Contains(text, "canary") {
			t.Errorf("%s has the password:\n%s", name, text)
		}
	}
	if !strings.Contains(plan, "outbound    https through") {
		t.Errorf("plan is\n%s", plan)
	}
	if mode := m.run("stat --format=%a:%U:%G /run/sidemirror-hosts/handover.json"); mode != "640:root:sidemirror\n" {
		t.Errorf("the file that has the password is %s", mode)
	}
}

// proxyChanges takes the settings away and brings them back, without a command of sidemirror's.
func (m *machine) proxyChanges(t testing.TB) {
	m.engineProxy("")
	m.run("systemctl daemon-reload")
	took := m.eventually("no proxy is used", func() error { return m.outboundIs("") })
	m.engineProxy(proxyURL)
	m.run("systemctl daemon-reload")
	again := m.eventually("the proxy is used again", func() error { return m.outboundIs("docker.service") })
	t.Logf("a change is in force %.2f s after daemon-reload, and another one %.2f s", took.Seconds(), again.Seconds())

	m.write("/etc/docker/daemon.json", strings.Replace(daemonJSON, "{", "{\n\t\"proxies\": {\"no-proxy\": \"192.168.0.0/16\"},", 1), 0o640)
	m.eventually("daemon.json counts", func() error { return m.outboundIs("docker.service and /etc/docker/daemon.json") })
	m.write("/etc/docker/daemon.json", daemonJSON, 0o640)
	m.eventually("daemon.json counts no more", func() error { return m.outboundIs("docker.service") })
	m.settled()
}

// proxyNotAdopted turns the adoption off: the engines then lose time with sidemirror at the first pull,
// and pull through their proxy.
func (m *machine) proxyNotAdopted(t testing.TB, net *internet) {
	first := func(name string) string {
		net.public.Push(t, "acme/"+name, "v1", shape(1<<16))
		return fmt.Sprintf("docker %.2f s", m.timed(docker, reference(hub, "acme/"+name)).Seconds())
	}
	with := first("adopted")
	before, err := os.ReadFile(m.path("/etc/sidemirror/config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	m.write("/etc/sidemirror/config.toml", string(before)+"\n[outbound]\nadopt_proxy = false\n", 0o644)
	m.eventually("no proxy is used", func() error { return m.outboundIs("") })
	without := first("not-adopted")
	if _, direct := net.visits(hub, "acme/not-adopted"); direct < 4 {
		t.Errorf("the registry saw %d requests of Docker's own", direct)
	}
	t.Logf("the first pull: %s with the engines' proxy, %s without it", with, without)
	m.write("/etc/sidemirror/config.toml", string(before), 0o644)
	m.eventually("the proxy is used again", func() error { return m.outboundIs("docker.service") })
}
