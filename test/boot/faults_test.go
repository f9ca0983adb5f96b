package boot

import (
	"slices"
	"testing"
	"time"
)

// everyPuller are the ways to pull on a machine of manyEngines.
var everyPuller = []puller{docker, kubernetes, podman, buildah, skopeo, buildkit}

// atPeace is no fault.
var atPeace = fault{"in order", func(*machine, *internet) {}, func(*machine, *internet) {}}

// configuredHost is a machine of manyEngines on which sidemirror is installed and all engines use it.
func configuredHost(t testing.TB) (*machine, *internet) {
	t.Helper()
	p := built(t)
	m, net := manyEngines(t, p.deb)
	m.run("apt-get install --yes --no-install-recommends --quiet " + inside(p.deb))
	for _, file := range allEngineFiles {
		m.eventually(file+" is configured", func() error { return m.mentioned(file) })
	}
	return m, net
}

// Whatever befalls sidemirror, every engine has its image.
func TestEveryEnginePullsWhateverBefallsSidemirror(t *testing.T) {
	t.Parallel()
	m, net := configuredHost(t)
	for _, p := range everyPuller {
		m.pullsBy(t, net, p, "faultless-"+p.name, true)
	}
	// What the default costs is measured, by measureFaults.
	m.write("/etc/sidemirror/config.toml", "[registry.\"docker.io\"]\nheader_timeout = \"2s\"\n", 0o644)
	m.run("systemctl reload sidemirror.service")
	for _, f := range faults {
		m.step(f.name, func(t testing.TB) {
			for _, p := range everyPuller {
				took := m.pullDuring(t, net, f, p, "acme/"+f.name+"-"+p.name)
				t.Logf("%s, fault %s: %.2f s", p.name, f.name, took.Seconds())
			}
		})
	}
	for _, p := range everyPuller {
		m.pullsBy(t, net, p, "recovered-"+p.name, true)
	}
}

// measureFaults reports by how much a pull takes longer than a direct one, for each fault and engine.
func measureFaults(b *testing.B, measure func(name string, part func() time.Duration)) {
	b.Helper()
	m, net := configuredHost(b)
	direct := func(p puller) time.Duration {
		const rounds = 3
		m.run("systemctl stop sidemirror.socket sidemirror.service")
		defer m.run("systemctl start sidemirror.socket sidemirror.service")
		var took []time.Duration
		for round := range rounds {
			took = append(took, m.pullDuring(b, net, atPeace, p, "acme/direct-"+p.name+string(rune('a'+round))))
		}
		slices.Sort(took)
		return took[rounds/2]
	}
	for _, p := range everyPuller {
		usual := direct(p)
		for _, f := range faults {
			measure("longer-"+f.name+"-"+p.name, func() time.Duration {
				return m.pullDuring(b, net, f, p, "acme/"+f.name+"-"+p.name) - usual
			})
		}
	}
}
