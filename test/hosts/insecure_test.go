package hosts_test

import (
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
)

// readers are the generations whose Docker reads hosts.toml files.
var readers = []engine.Generation{engine.Sid, engine.Built}

// dockerJSON is a daemon.json with members, by which Docker has the containerd store.
func dockerJSON(g engine.Generation, members ...string) string {
	if g == engine.Sid {
		members = append(members, `"features": {"containerd-snapshotter": true}`)
	}
	return "{" + strings.Join(members, ", ") + "}\n"
}

// insecure are the ways to tell dockerd that a registry is insecure (moby,
// daemon/pkg/registry/config.go): Docker Hub's own host, a name, a URL that dockerd strips,
// a network that the name resolves into, and the flag.
var insecure = []struct {
	name, member string
	flags        []string

	hub, other, six by // the way of a pull by Docker after apply
}{
	{name: "name", member: `"insecure-registries": ["reg.test"]`, hub: viaSidemirror, other: direct, six: viaSidemirror},
	{name: "host of Docker Hub", member: `"insecure-registries": ["registry-1.docker.io"]`, hub: direct, other: viaSidemirror, six: viaSidemirror},
	{name: "http URL", member: `"insecure-registries": ["http://reg.test"]`, hub: viaSidemirror, other: direct, six: viaSidemirror},
	{name: "https URL in capitals", member: `"insecure-registries": ["HTTPS://six.test"]`, hub: viaSidemirror, other: viaSidemirror, six: direct},
	{name: "IPv4 network", member: `"insecure-registries": ["198.51.100.0/24"]`, hub: direct, other: direct, six: viaSidemirror},
	{name: "IPv4 network by one of its hosts", member: `"insecure-registries": ["198.51.100.77/24"]`, hub: direct, other: direct, six: viaSidemirror},
	{name: "IPv6 network", member: `"insecure-registries": ["2001:db8::/64"]`, hub: viaSidemirror, other: viaSidemirror, six: direct},
	{name: "flag", member: `"log-level": "info"`, flags: []string{"--insecure-registry=reg.test"}, hub: viaSidemirror, other: direct, six: viaSidemirror},
	{name: "two flags", member: `"log-level": "info"`, flags: []string{"--insecure-registry", "six.test", "--insecure-registry", "198.51.100.0/24"}, hub: direct, other: direct, six: direct},
	{name: "other network", member: `"insecure-registries": ["203.0.113.0/24", "reg.test:5000"]`, hub: viaSidemirror, other: viaSidemirror, six: viaSidemirror},
}

// A hosts.toml overrides insecure-registries. The host does not know the registries'
// authorities: with such a file each pull while sidemirror is stopped would fail.
func TestDockerStillPullsFromRegistriesThatItTreatsAsInsecure(t *testing.T) {
	engine.NeedRoot(t)
	each(t, readers, func(t *testing.T, g engine.Generation) {
		r := newRig(t, rigOptions{generation: g, distrust: true, six: true})
		for _, c := range insecure {
			t.Run(c.name, func(t *testing.T) {
				r.put(t, map[string]string{"/etc/docker/daemon.json": dockerJSON(g, c.member)})
				r.host.StartDocker(t, c.flags...)
				want := map[string]by{"": c.hub, otherName + "/": c.other, sixName + "/": c.six}
				for prefix, way := range want {
					if way == direct {
						if got := r.byDocker(t, prefix); got != direct {
							t.Errorf("before apply Docker pulls %q %s", prefix, got)
						}
					}
				}
				first := r.takeTree(t)
				r.do(t, 0, "apply")
				for prefix, way := range want {
					if got := r.byDocker(t, prefix); got != way {
						t.Errorf("after apply Docker pulls %q %s, want %s", prefix, got, way)
					}
				}
				r.do(t, 0, "plan")
				r.do(t, 0, "revert")
				r.sameTree(t, "after revert", first)
			})
		}
		t.Run("while sidemirror is stopped", func(t *testing.T) {
			r.put(t, map[string]string{"/etc/docker/daemon.json": dockerJSON(g, `"insecure-registries": ["198.51.100.0/24", "2001:db8::/64"]`)})
			r.host.StartDocker(t)
			r.do(t, 0, "apply")
			r.sidemirror.Stop()
			for _, prefix := range []string{"", otherName + "/", sixName + "/"} {
				if got := r.byDocker(t, prefix); got != direct {
					t.Errorf("Docker pulls %q %s", prefix, got)
				}
			}
			r.do(t, 0, "revert")
		})
	})
}

// each runs a test for those of some generations that are tested.
func each(t *testing.T, generations []engine.Generation, test func(t *testing.T, g engine.Generation)) {
	t.Helper()
	for _, tested := range engine.Generations() {
		for _, g := range generations {
			if g == tested {
				t.Run(string(g), func(t *testing.T) { test(t, g) })
			}
		}
	}
}
