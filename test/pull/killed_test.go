package pull_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/engine/cri"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/registry"
)

// killing is one sidemirror on a fixed address, killed and started again.
type killing struct {
	upstream *registry.Registry
	start    func() *harness.Sidemirror
	pulled   int
}

// afterSIGKILL pulls through a running sidemirror, kills it, and pulls again.
func (k *killing) afterSIGKILL(t *testing.T, pull func(repository string) error) {
	t.Helper()
	s := k.start()
	warm := k.push(t)
	if err := pull(warm.Repository); err != nil {
		t.Fatal(err)
	}
	if _, ours := k.upstream.Requests("/v2/" + warm.Repository + "/"); ours == 0 {
		t.Fatal("the pull before the kill did not go through sidemirror")
	}
	s.Kill()
	image := k.push(t)
	if err := pull(image.Repository); err != nil {
		t.Errorf("after SIGKILL: %v", err)
	}
	if _, ours := k.upstream.Requests("/v2/" + image.Repository + "/"); ours != 0 {
		t.Errorf("sidemirror was killed, and made %d requests for %s", ours, image.Repository)
	}
}

func (k *killing) push(t *testing.T) registry.Image {
	k.pulled++
	return k.upstream.Push(t, fmt.Sprintf("alice/killed-%d", k.pulled), "v1", registry.Shape{Index: true, Size: 1 << 20})
}

func TestContainerdFallsBackToTheRegistryAfterSIGKILL(t *testing.T) {
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

	containerd := engine.StartContainerd(t, h.certs())
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
			k.afterSIGKILL(t, func(repository string) error { return pull(containerd, repository) })
		})
	}
}

// hubAddress is Docker Hub's address for the dockerd of one test. dockerd always uses https and
// port 443 for it.
const hubAddress = "127.77.7.7:443"

func TestDockerFallsBackToTheRegistryAfterSIGKILL(t *testing.T) {
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
	docker := engine.StartDocker(t, engine.DockerOptions{Config: h.docker(), Hosts: hosts, CA: hub.CA})
	k.afterSIGKILL(t, func(repository string) error { return docker.Pull(t.Context(), repository+":v1", "") })
}
