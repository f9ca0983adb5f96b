package boot

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkBooted measures how long things take on a booted trixie. Run it once, as "make
// bench-boot" does: each of its parts reports one figure in seconds.
func BenchmarkBooted(b *testing.B) {
	p := built(b)
	m, net := freshHost(b, trixie, p.deb)
	measure := func(name string, part func() time.Duration) {
		b.Run(name, func(b *testing.B) {
			m.t = b
			defer func() { m.t = m.owner }()
			b.ReportMetric(part().Seconds(), "s")
			b.ReportMetric(0, "ns/op")
		})
	}
	measure("direct-pull", func() time.Duration { return m.directly(net, "direct") })
	measure("installation", func() time.Duration {
		began := time.Now()
		m.run("dpkg --install " + inside(p.deb))
		for _, file := range engineFiles {
			m.eventually(file+" is configured", func() error { return m.configured(file) })
		}
		return time.Since(began)
	})
	measure("entry-put-back", m.putBack)
	measure("configuration-repaired", m.repairConfiguration)
	measure("killed", func() time.Duration { return m.signalled("KILL") })
	measure("hung", func() time.Duration { return m.signalled("STOP") })
	measure("pull-while-stopped", func() time.Duration {
		m.run("systemctl stop sidemirror.socket sidemirror.service")
		defer m.run("systemctl start sidemirror.socket sidemirror.service")
		return m.directly(net, "stopped")
	})
	measure("engine-installed-later", func() time.Duration { return m.engineInstalled() })
	measure("boot", func() time.Duration { return m.bootsLonger() })
	measureFaults(b, measure)
}

// putBack takes sidemirror's entry out of Docker's configuration, as another program that rewrites
// it does, and returns how long the watcher takes to put it back.
func (m *machine) putBack() time.Duration {
	m.write("/etc/docker/daemon.json", daemonJSON, 0o640)
	return m.eventually("the entry is back", func() error { return m.configured("/etc/docker/daemon.json") })
}

// repairConfiguration makes the configuration invalid, and returns how long the proxy takes to
// notice that it is valid again.
func (m *machine) repairConfiguration() time.Duration {
	const inForce = "the configuration on disk is not in force"
	m.write("/etc/sidemirror/config.toml", "lissten = 1\n", 0o644)
	m.eventually("the proxy reports the error", func() error {
		if line := m.property("sidemirror.service", "StatusText"); !strings.Contains(line, inForce) {
			return errors.New(line)
		}
		return nil
	})
	m.write("/etc/sidemirror/config.toml", "", 0o644)
	return m.eventually("the configuration is in force", func() error {
		if line := m.property("sidemirror.service", "StatusText"); strings.Contains(line, inForce) {
			return errors.New(line)
		}
		return nil
	})
}

// signalled sends the proxy a signal, and returns how long systemd takes to replace it.
func (m *machine) signalled(signal string) time.Duration {
	before := m.property("sidemirror.service", "MainPID")
	m.run("kill -" + signal + " " + before)
	return m.eventually("another proxy runs", func() error { return m.replaced(before) })
}

// engineInstalled removes Docker and returns how long its configuration takes after it is
// installed again.
func (m *machine) engineInstalled() time.Duration {
	m.run("dpkg --purge docker.io docker-cli")
	// The file itself stays: putBack wrote it, and sidemirror restores what others wrote.
	m.eventually("sidemirror's entry is removed", func() error {
		if m.configured("/etc/docker/daemon.json") == nil {
			return errors.New("it is there")
		}
		return nil
	})
	m.run("cd /srv/engines && dpkg --install --force-confold docker.io_*.deb docker-cli_*.deb")
	return m.eventually("Docker is configured", func() error { return m.configured("/etc/docker/daemon.json") })
}

// bootsLonger returns by how much the fastest of several boots with sidemirror is slower than the
// fastest without. What else runs on this machine only ever makes a boot slower.
func (m *machine) bootsLonger() time.Duration {
	const rounds = 5
	best := map[string]time.Duration{}
	for round := range rounds {
		verbs := []string{"enable", "disable"}
		if round%2 == 1 {
			slices.Reverse(verbs) // what the machine does besides comes and goes
		}
		for _, verb := range verbs {
			m.run("systemctl " + verb + " sidemirror.socket sidemirror-hosts.service")
			m.reboot()
			took := m.bootTime()
			if best[verb] == 0 || took < best[verb] {
				best[verb] = took
			}
			if verb != "enable" {
				continue
			}
			for _, unit := range []string{"sidemirror.socket", "sidemirror-hosts.service"} {
				m.eventually(unit+" is active", func() error { return m.active(unit) })
			}
		}
	}
	fmt.Fprintf(os.Stderr, "the fastest of %d boots each took %v with sidemirror and %v without\n", rounds, best["enable"], best["disable"])
	return best["enable"] - best["disable"]
}
