package boot

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// stockHost makes and boots a Docker host as Debian installs it: no settings for containerd, and no
// program that uses CRI.
func stockHost(t testing.TB, s suite, packages ...string) (*machine, *internet) {
	t.Helper()
	m := newMachine(t, s)
	net := connect(t, m)
	m.carry(packages...)
	m.boot()
	return m, net
}

// What a person sees in the first hour on a stock Docker host.
func TestFirstContactOnAStockDockerHost(t *testing.T) {
	t.Parallel()
	p := built(t)
	m, net := stockHost(t, trixie, p.deb)
	out := m.run("apt-get install --yes --no-install-recommends --quiet " + inside(p.deb))
	lines := postinst(out)
	want := []string{
		"sidemirror: docker pulls through sidemirror from Docker Hub only (1 file); pull other registries as localhost:305/ghcr.io/…",
		"sidemirror: to undo it: apt remove sidemirror",
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("the installation prints\n%s\nand not\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	m.step("status is green", func(t testing.TB) { m.well(t) })
	m.step("login names the other way to pull", func(t testing.TB) { m.loginHint(t, net) })
	m.step("a stopped engine", func(t testing.TB) { m.stoppedEngine(t) })
	m.step("units that are stopped, disabled or failed", func(t testing.TB) { m.unitsThatAreDown(t) })
	m.step("a CRI client", func(t testing.TB) { m.criClient(t) })
	m.step("a configuration that is not in force", func(t testing.TB) { m.notInForce(t) })
	m.step("listen in the file", func(t testing.TB) { m.listenInFile(t) })
	m.step("what the service's user cannot read", func(t testing.TB) { m.unreadable(t) })
	m.step("addresses of the socket unit", func(t testing.TB) { m.socketMoved(t) })
	m.step("revert stays reverted", func(t testing.TB) { m.revertLasts(t) })
}

// jsonReport is what the tests read of "sidemirror status --json".
type jsonReport struct {
	OK    bool
	Units []struct{ Name, Active, File string }
}

// well expects a status without a problem, in each of its forms.
func (m *machine) well(t testing.TB) {
	t.Helper()
	m.eventually("status finds no problem", func() error { _, err := m.try("sidemirror status"); return err })
	if out, err := m.try("sidemirror status --short"); err != nil {
		t.Errorf("status --short exits with an error: %v\n%s", err, out)
	}
	var r jsonReport
	out, err := m.try("sidemirror status --json")
	if err != nil || json.Unmarshal([]byte(out), &r) != nil || !r.OK || len(r.Units) != len(ourUnits) {
		t.Errorf("status --json is not ok: %v\n%s", err, out)
	}
}

// unwell expects a status with a problem in each of its forms, and the texts in the long one. It
// returns what "status --short" prints, which is three lines.
func (m *machine) unwell(t testing.TB, texts ...string) (short []string) {
	t.Helper()
	m.eventually("status finds the problem", func() error {
		out, err := m.try("sidemirror status")
		if err == nil {
			return fmt.Errorf("no problem found:\n%s", out)
		}
		for _, text := range texts {
			if !strings.Contains(out, text) {
				return fmt.Errorf("no %q in\n%s", text, out)
			}
		}
		return nil
	})
	if out, err := m.try("sidemirror status --json"); err == nil || !strings.Contains(out, `"ok": false`) {
		t.Errorf("status --json is ok: %v\n%s", err, out)
	}
	out, err := m.try("sidemirror status --short")
	short = strings.Split(strings.TrimSpace(strings.Split(out, "\nsidemirror status --short: ")[0]), "\n")
	if err == nil || len(short) != 3 {
		t.Errorf("status --short does not print three lines and exit with an error: %v\n%s", err, out)
	}
	return short
}

// loginHint logs in to a registry that this Docker does not pull from through sidemirror.
func (m *machine) loginHint(t testing.TB, net *internet) {
	login := func(name string) string {
		out, err := m.tryWith(net.private.Password, "sidemirror login "+name+" --username "+net.private.User+" --password-stdin")
		if err != nil {
			t.Error(err)
		}
		return out
	}
	if out := login(ghcr); !strings.HasPrefix(out, "note: docker 26.1.5 pulls through sidemirror from Docker Hub only: a plain pull from ghcr.io does not use this login\nhint: pull as localhost:305/ghcr.io/…\n") {
		t.Errorf("login to %s prints\n%s", ghcr, out)
	}
	if out := login("docker.io"); strings.Contains(out, "note:") {
		t.Errorf("login to docker.io prints\n%s", out)
	}
	// What the hint says is true.
	repository := "alice/hint"
	net.private.Push(t, repository, "v1", shape(1<<16))
	if err := m.dockerPull(reference(ghcr, repository)); err == nil {
		t.Error("a plain pull uses the login")
	}
	if err := m.dockerPull("localhost:305/" + ghcr + "/" + repository + ":v1"); err != nil {
		t.Error(err)
	}
}

// stoppedEngine stops Docker.
func (m *machine) stoppedEngine(t testing.TB) {
	m.run("systemctl stop docker.socket docker.service")
	out := m.run("sidemirror status")
	if !strings.Contains(out, "docker      26.1.5, stopped,") {
		t.Errorf("status does not say that Docker is stopped:\n%s", out)
	}
	if out := m.run("sidemirror status --short"); !strings.HasPrefix(out, "sidemirror: docker (stopped) pulls ") {
		t.Errorf("nor does status --short:\n%s", out)
	}
	m.run("systemctl start docker.service")
	m.well(t)
}

// unitsThatAreDown has units in every state that an administrator or a failure can bring them into,
// and does what the hint says.
func (m *machine) unitsThatAreDown(t testing.TB) {
	for _, c := range []struct{ name, do, text, hint string }{
		{"proxy and socket stopped", "systemctl stop sidemirror.socket sidemirror.service",
			"so engines use the registries directly: sidemirror.socket is stopped", "systemctl start sidemirror.socket"},
		{"proxy and socket disabled", "systemctl disable --now sidemirror.socket sidemirror.service",
			"so engines use the registries directly: sidemirror.socket is stopped and disabled", "systemctl enable --now sidemirror.socket"},
		{"socket disabled", "systemctl disable sidemirror.socket", "sidemirror.socket is disabled: it does not start at boot", "systemctl enable sidemirror.socket"},
		{"watcher stopped", "systemctl stop sidemirror-hosts.service",
			"sidemirror-hosts.service is stopped: the engines' configuration is not maintained", "systemctl start sidemirror-hosts.service"},
		{"watcher disabled", "systemctl disable sidemirror-hosts.service", "sidemirror-hosts.service is disabled: it does not start at boot", "systemctl enable sidemirror-hosts.service"},
	} {
		m.run(c.do)
		short := m.unwell(t, "problem: ", c.text, "\nhint: "+c.hint+"\n")
		if down := strings.Contains(c.text, "directly"); down == strings.HasPrefix(short[0], "sidemirror: docker pulls through sidemirror") {
			t.Errorf("%s: status --short begins with %s", c.name, short[0])
		}
		if strings.Contains(strings.Join(short, "\n"), "sidemirror serve") {
			t.Errorf("%s: the hint under systemd is not for systemd: %s", c.name, short)
		}
		m.run(c.hint)
		m.well(t)
	}
	m.dropIn("[Service]\nExecStart=\nExecStart=/bin/false\n")
	_, _ = m.try("systemctl restart sidemirror.service")
	m.unwell(t, "sidemirror.socket has failed", "systemctl status sidemirror.socket shows why; systemctl restart sidemirror.socket")
	m.dropIn("")
	m.eventually("the proxy starts", func() error { _, err := m.try("systemctl restart sidemirror.socket sidemirror.service"); return err })
	m.well(t)
}

// criClient puts crictl's configuration onto the host, as an administrator of Kubernetes does.
func (m *machine) criClient(t testing.TB) {
	m.run("echo runtime-endpoint: unix:///run/containerd/containerd.sock >/etc/crictl.yaml")
	m.unwell(t, "problem: containerd: /etc/containerd/config.toml: CRI does not read hosts.toml files", "sidemirror apply --restart-containerd")
	m.run("rm /etc/crictl.yaml")
	m.well(t)
}

// notInForce has a configuration on disk that the proxy does not use: one that is faulty, and one that
// is right but names what the proxy may not read.
func (m *machine) notInForce(t testing.TB) {
	const file = "/etc/sidemirror/config.toml"
	good := m.run("cat " + file)
	m.run("cp /etc/ssl/certs/ca-certificates.crt /root/ca.pem")
	for text, says := range map[string]string{
		"lissten = 1\n": `did you mean "listen"?`,
		"[registry.\"ghcr.io\"]\nca = \"/root/ca.pem\"\n": "/root/ca.pem: permission denied",
	} {
		m.write(file, text, 0o644)
		short := m.unwell(t, "problem: the configuration on disk is not in force: ", says)
		if !strings.Contains(short[1], says) {
			t.Errorf("status --short prints %s", short[1])
		}
		// Another user cannot read the configuration that is in force, and status knows that there is one.
		out, _ := m.try("su -s /bin/sh daemon -c 'sidemirror status --short'")
		if !strings.HasPrefix(out, "sidemirror: docker ") {
			t.Errorf("status --short of another user begins with\n%s", out)
		}
		m.run("systemctl is-active sidemirror.socket sidemirror.service sidemirror-hosts.service")
	}
	m.write(file, good, 0o644)
	m.well(t)
}

// listenInFile names an address that systemd does not open.
func (m *machine) listenInFile(t testing.TB) {
	const file = "/etc/sidemirror/config.toml"
	good := m.run("cat " + file)
	before := m.run("cat /etc/docker/daemon.json")
	m.write(file, "listen = [\"127.0.0.1:205\"]\n", 0o644)
	m.unwell(t, "systemd opens the sockets, and not at 127.0.0.1:205", "systemctl edit sidemirror.socket")
	for _, command := range []string{"config check", "plan", "apply"} {
		out, err := m.try("sidemirror " + command)
		if err == nil || !strings.Contains(out, "config.toml:1:1: listen: systemd opens the sockets, and not at 127.0.0.1:205") ||
			!strings.Contains(out, `hint: remove listen, and change the addresses with "systemctl edit sidemirror.socket"`) {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
	m.eventually("the watcher reports it", func() error { return m.reports("sidemirror-hosts.service", "not at 127.0.0.1:205") })
	m.run("systemctl restart sidemirror-hosts.service")
	m.eventually("the watcher reports it after a restart", func() error { return m.reports("sidemirror-hosts.service", "not at 127.0.0.1:205") })
	if now := m.run("cat /etc/docker/daemon.json"); now != before {
		t.Errorf("daemon.json is\n%s", now)
	}
	m.write(file, good, 0o644)
	m.well(t)
}

// unreadable has files that root can read and the service cannot.
func (m *machine) unreadable(t testing.TB) {
	const file = "/etc/sidemirror/config.toml"
	good := m.run("cat " + file)
	check := func(text string, code int, says string) {
		t.Helper()
		m.write(file, text, 0o644)
		out, err := m.try("sidemirror config check >/run/out 2>&1; code=$?; cat /run/out; exit $code")
		if code == 0 != (err == nil) || code != 0 && !strings.Contains(err.Error(), fmt.Sprintf("exit status %d\n", code)) || !strings.Contains(out, says) {
			t.Errorf("%s: want exit code %d and %q: %v\n%s", text, code, says, err, out)
		}
	}
	m.run("install -m 644 /etc/ssl/certs/ca-certificates.crt /root/ca.pem; cp /root/ca.pem /home/ca.pem; cp /root/ca.pem /tmp/ca.pem; cp /root/ca.pem /etc/sidemirror/ca.pem")
	for _, path := range []string{"/root/ca.pem", "/home/ca.pem", "/tmp/ca.pem", "/nonexistent/ca.pem"} {
		check("[registry.\"ghcr.io\"]\nca = \""+path+"\"\n", 2, path)
	}
	check("[registry.\"ghcr.io\"]\nca = \"/etc/sidemirror/ca.pem\"\n", 0, "ok ")
	m.write("/root/.docker/config.json", `{"auths":{"ghcr.io":{"auth":"bWU6bWU="}}}`, 0o600)
	m.run("install -m 600 /root/.docker/config.json /etc/sidemirror/logins.json")
	for _, path := range []string{"/root/.docker/config.json", "/etc/sidemirror/logins.json"} {
		check("[credentials]\nfiles = [\""+path+"\"]\n", 1, path)
	}
	m.run("chgrp sidemirror /etc/sidemirror/logins.json; chmod 640 /etc/sidemirror/logins.json")
	check("[credentials]\nfiles = [\"/etc/sidemirror/logins.json\"]\n", 0, "ok ")
	check("[cache]\ndir = \"/srv/cache\"\n", 1, "nothing is stored")
	m.run("systemctl stop sidemirror.service")
	check("[registry.\"ghcr.io\"]\nca = \"/root/ca.pem\"\n", 2, "/root/ca.pem")
	check("[credentials]\nfiles = [\"/run/credentials/sidemirror.service/x.json\"]\n", 0, "does not run")
	m.run("rm -r /root/.docker /root/ca.pem /home/ca.pem /tmp/ca.pem /etc/sidemirror/ca.pem /etc/sidemirror/logins.json")
	m.write(file, good, 0o644)
	m.run("systemctl start sidemirror.service; chmod 600 " + file)
	out, err := m.try("sidemirror config check")
	if err == nil || !strings.Contains(out, file+": permission denied") {
		t.Errorf("a configuration file that the service cannot read: %v\n%s", err, out)
	}
	m.run("chmod 644 " + file)
	m.eventually("the file is in force again", func() error {
		return m.reports("sidemirror.service", "serving every registry on 127.0.0.1:305, [::1]:305")
	})
	m.well(t)
}

// socketMoved opens the sockets at another port, as the hint of a refused listen says.
func (m *machine) socketMoved(t testing.TB) {
	const dropIn = "/etc/systemd/system/sidemirror.socket.d/override.conf"
	m.write(dropIn, "[Socket]\nListenStream=\nListenStream=127.0.0.1:205\n", 0o644)
	m.run("systemctl daemon-reload && systemctl restart sidemirror.socket")
	m.eventually("Docker is pointed at the new port", func() error { return m.configuredFor("205", "/etc/docker/daemon.json") })
	m.well(t)
	if short := m.status("--short"); !strings.Contains(short, "localhost:205/ghcr.io/…") {
		t.Errorf("status --short prints\n%s", short)
	}
	m.run("rm " + dropIn + " && systemctl daemon-reload && systemctl restart sidemirror.socket")
	m.eventually("Docker is pointed at the old port", func() error { return m.configured("/etc/docker/daemon.json") })
	m.well(t)
}

// revertLasts takes everything back, over a reboot, and brings it back as revert says.
func (m *machine) revertLasts(t testing.TB) {
	m.run("sidemirror apply --restart-containerd")
	out := m.run("sidemirror revert")
	const stopped = "stopped    sidemirror-hosts.service, which would write the files again, and disabled it\n"
	const undo = "to undo    systemctl enable --now sidemirror-hosts.service\n"
	if !strings.HasPrefix(out, stopped) || !strings.HasSuffix(out, undo) || !strings.Contains(out, "containerd was not restarted: until it is, it uses what this file had before\nhint: systemctl restart containerd") {
		t.Errorf("revert prints\n%s", out)
	}
	reverted := func(when string) {
		t.Helper()
		if state := m.property("sidemirror-hosts.service", "ActiveState") + " " + m.property("sidemirror-hosts.service", "UnitFileState"); state != "inactive disabled" {
			t.Errorf("%s the watcher is %s", when, state)
		}
		if left, err := m.try("grep -rl '305' /etc/docker /etc/containerd"); err == nil {
			t.Errorf("%s there is sidemirror's entry in %s", when, left)
		}
	}
	reverted("after revert")
	m.unwell(t, "problem: sidemirror-hosts.service is stopped and disabled", "\nhint: systemctl enable --now sidemirror-hosts.service\n")
	if out := m.run("sidemirror revert"); out != "nothing to restore\n" {
		t.Errorf("a second revert prints\n%s", out)
	}
	m.reboot()
	reverted("after a reboot")
	m.run("dpkg --install /srv/sidemirror_*.deb")
	reverted("after an installation of the same package")
	_, command, _ := strings.Cut(strings.TrimSpace(undo), "to undo    ")
	m.run(command)
	m.eventually("Docker is configured again", func() error { return m.configured("/etc/docker/daemon.json") })
	m.well(t)
}
