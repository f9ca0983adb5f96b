package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ourUnits are those that the packages bring.
var ourUnits = []string{"sidemirror.socket", "sidemirror.service", "sidemirror-hosts.service"}

// daemonJSON is what the administrator of a fresh host has in /etc/docker, tabs and
// all: enough downloads at a time for the tests that run many pulls.
const daemonJSON = "{\n\t\"max-concurrent-downloads\": 40,\n\t\"log-driver\":   \"json-file\"\n}\n"

// engineFiles are one file of each engine that sidemirror configures on a fresh host.
var engineFiles = []string{"/etc/docker/daemon.json", "/etc/containerd/certs.d/ghcr.io/hosts.toml"}

// freshHost makes and boots a container host as an administrator keeps it, which
// has not heard of us: both engines, settings of its own for both, the internet.
// The packages lie in /srv.
func freshHost(t testing.TB, s suite, packages ...string) (*machine, *internet) {
	t.Helper()
	m := newMachine(t, s)
	net := connect(t, m)
	m.readCerts()
	m.write("/etc/docker/daemon.json", daemonJSON, 0o640)
	m.carry(packages...)
	m.boot()
	return m, net
}

// carry copies files of this host into the machine's /srv.
func (m *machine) carry(files ...string) {
	m.t.Helper()
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			m.t.Fatal(err)
		}
		m.write("/srv/"+filepath.Base(file), string(content), 0o644)
	}
}

// login logs in to both registries, as a person does.
func (m *machine) login(net *internet) {
	m.t.Helper()
	for _, name := range []string{"docker.io", ghcr} {
		out, err := m.tryWith(net.private.Password, "sidemirror login "+name+" --username "+net.private.User+" --password-stdin")
		if err != nil {
			m.t.Fatal(err)
		}
		if strings.Contains(out, net.private.Password) {
			m.t.Error("login prints the password")
		}
	}
}

// through pulls a new image with both engines and wants all of it to have come
// through us: by our own access log, and by the registry's.
func (m *machine) through(net *internet, name string) {
	m.t.Helper()
	for _, p := range pullers {
		host, known := hub, "docker.io"
		if p.name == "cri" {
			host, known = ghcr, ghcr
		}
		repository := fmt.Sprintf("alice/%s-%s", name, p.name)
		net.private.Push(m.t, repository, "v1", shape(1<<16))
		began := time.Now()
		if err := p.pull(m, reference(host, repository)); err != nil {
			m.t.Errorf("%s: %v", name, err)
			continue
		}
		took := time.Since(began)
		// A manifest, a configuration and two layers; most engines ask for the tag by HEAD before.
		served := 0
		m.eventually("the pull is in the access log", func() error {
			if served = m.served(known, repository); served < 4 {
				return fmt.Errorf("%s: sidemirror has served %d requests for %s", name, served, repository)
			}
			return nil
		})
		ours, direct := net.visits(host, repository)
		if direct != 0 || ours < 4 {
			m.t.Errorf("%s: for %s the registry saw %d requests of ours and %d of %s's own", name, repository, ours, direct, p.name)
		}
		m.t.Logf("%s: %s pulled %s in %.2f s, %d requests served by us, 0 past us", name, p.name, repository, took.Seconds(), served)
	}
}

// directly pulls a new public image with both engines and wants all of it to have
// come from the registry, without us. It returns how long the slower pull took.
func (m *machine) directly(net *internet, name string) time.Duration {
	m.t.Helper()
	var slowest time.Duration
	for _, p := range pullers {
		repository := fmt.Sprintf("acme/%s-%s", name, p.name)
		net.public.Push(m.t, repository, "v1", shape(1<<16))
		began := time.Now()
		if err := p.pull(m, reference(hub, repository)); err != nil {
			m.t.Errorf("%s: %v", name, err)
		}
		took := time.Since(began)
		slowest = max(slowest, took)
		m.t.Logf("%s: %s pulled directly in %.2f s", name, p.name, took.Seconds())
		if ours, direct := net.visits(hub, repository); ours != 0 || direct < 4 {
			m.t.Errorf("%s: for %s the registry saw %d requests of ours and %d of %s's own", name, repository, ours, direct, p.name)
		}
	}
	return slowest
}

// configured reports whether an engine's file has sidemirror's address.
func (m *machine) configured(file string) error {
	return m.configuredFor("305", file)
}

// configuredFor is configured with another port.
func (m *machine) configuredFor(port, file string) error {
	content, err := os.ReadFile(m.path(file))
	if err == nil && !strings.Contains(string(content), `"http://127.0.0.1:`+port+`"`) {
		err = fmt.Errorf("%s does not have port %s", file, port)
	}
	return err
}

// mentioned reports whether a file of any format has sidemirror's address.
func (m *machine) mentioned(file string) error {
	content, err := os.ReadFile(m.path(file))
	if err == nil && !strings.Contains(string(content), "127.0.0.1:305") {
		err = fmt.Errorf("%s does not name 127.0.0.1:305", file)
	}
	return err
}

// status returns what "sidemirror status" prints. It exits with 1 if there are problems.
func (m *machine) status(flags string) string {
	m.t.Helper()
	out, _ := m.try("sidemirror status " + flags)
	return out
}

// ours lists the processes in the machine that are ours.
func (m *machine) ours() string {
	m.t.Helper()
	out, _ := m.try(`for p in /proc/[0-9]*; do case $(readlink $p/exe) in */sidemirror*) tr '\0' ' ' <$p/cmdline; echo;; esac; done`)
	return strings.TrimSpace(out)
}
