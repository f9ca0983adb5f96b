package pull_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/engine/cri"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/registry"
)

const (
	// rounds are how often each is measured; the best counts, for the machine is
	// shared and the question is what being killed costs, not what a neighbour does.
	rounds = 3
	// slower is how much longer than without us a pull may take.
	slower = time.Second
)

// killing is one sidemirror on a fixed address, killed and started again.
type killing struct {
	upstream *registry.Registry
	start    func() *harness.Sidemirror
	pulled   int
}

// direct is the best time of pulls where nothing of us is configured.
func (k *killing) direct(t *testing.T, pull func(repository string) error) time.Duration {
	best := time.Hour
	for range rounds {
		best = min(best, k.pull(t, pull))
	}
	return best
}

// afterSIGKILL pulls through a running sidemirror, kills it, and takes the time of
// the very next pull.
func (k *killing) afterSIGKILL(t *testing.T, pull func(repository string) error) time.Duration {
	best := time.Hour
	for range rounds {
		s := k.start()
		warm := k.push(t)
		if err := pull(warm.Repository); err != nil {
			t.Fatal(err)
		}
		if _, ours := k.upstream.Requests("/v2/" + warm.Repository + "/"); ours == 0 {
			t.Fatal("the pull before the kill did not go through sidemirror")
		}
		s.Kill()
		best = min(best, k.pull(t, pull))
	}
	return best
}

func (k *killing) push(t *testing.T) registry.Image {
	k.pulled++
	return k.upstream.Push(t, fmt.Sprintf("alice/killed-%d", k.pulled), "v1", registry.Shape{Index: true, Size: 1 << 20})
}

// pull takes the time of the pull of a new image, which only the registry can have
// answered.
func (k *killing) pull(t *testing.T, pull func(repository string) error) time.Duration {
	t.Helper()
	image := k.push(t)
	began := time.Now()
	if err := pull(image.Repository); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	if _, ours := k.upstream.Requests("/v2/" + image.Repository + "/"); ours != 0 {
		t.Errorf("sidemirror is dead and yet asked the registry for %s", image.Repository)
	}
	return took
}

func report(t *testing.T, client string, direct, killed time.Duration) {
	t.Helper()
	t.Logf("%-6s without us %4d ms, after SIGKILL %4d ms", client, direct.Milliseconds(), killed.Milliseconds())
	if killed-direct >= slower {
		t.Errorf("%s: a pull after SIGKILL takes %s, without us %s", client, killed, direct)
	}
}

func TestContainerdGoesOnByItselfAfterSIGKILL(t *testing.T) {
	engine.NeedRoot(t)
	upstream := registry.Start(t, registry.Options{})
	// Named by its address, the registry is what containerd falls back to.
	o := harness.Options{
		Listen:     []string{harness.FreeAddress(t)},
		Registries: []harness.Registry{{Name: upstream.Host, Upstreams: []string{upstream.URL.String()}}},
	}
	k := &killing{upstream: upstream, start: func() *harness.Sidemirror { return harness.Start(t, o) }}
	first := k.start()
	h := newHost(t, first)
	h.run(t, "apply")
	first.Kill()

	without := engine.StartContainerd(t, t.TempDir())
	with := engine.StartContainerd(t, h.certs())
	for client, pull := range map[string]func(*engine.Containerd, string) error{
		"ctr": func(c *engine.Containerd, repository string) error {
			return c.Pull(t.Context(), upstream.Reference(repository)+":v1", "")
		},
		"CRI": func(c *engine.Containerd, repository string) error {
			_, err := cri.Pull(t.Context(), c.Socket, upstream.Reference(repository)+":v1", "", "")
			return err
		},
	} {
		t.Run(client, func(t *testing.T) {
			direct := k.direct(t, func(repository string) error { return pull(without, repository) })
			killed := k.afterSIGKILL(t, func(repository string) error { return pull(with, repository) })
			report(t, client, direct, killed)
		})
	}
}

// hubAddress is Docker Hub's address for the dockerd of one test. dockerd always uses https and
// port 443 for it.
const hubAddress = "127.77.7.7:443"

func TestDockerGoesOnByItselfAfterSIGKILL(t *testing.T) {
	engine.NeedRoot(t)
	ip, _, err := net.SplitHostPort(hubAddress)
	if err != nil {
		t.Fatal(err)
	}
	hub := registry.Start(t, registry.Options{Names: []string{"registry-1.docker.io", ip}, Address: hubAddress})
	o := harness.Options{
		Listen:     []string{harness.FreeAddress(t)},
		Registries: []harness.Registry{{Name: "docker.io", Upstreams: []string{hub.URL.String()}, CA: hub.CA}},
	}
	k := &killing{upstream: hub, start: func() *harness.Sidemirror { return harness.Start(t, o) }}
	first := k.start()
	h := newHost(t, first)
	h.run(t, "apply")
	first.Kill()

	hosts := ip + " registry-1.docker.io\n127.0.0.1 localhost\n"
	empty := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(empty, []byte("{}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	pull := func(config string) func(repository string) error {
		docker := engine.StartDocker(t, engine.DockerOptions{Config: config, Hosts: hosts, CA: hub.CA})
		return func(repository string) error { return docker.Pull(t.Context(), repository+":v1", "") }
	}
	direct := k.direct(t, pull(empty))
	killed := k.afterSIGKILL(t, pull(h.docker()))
	report(t, "docker", direct, killed)
}
