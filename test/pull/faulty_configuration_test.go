package pull_test

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/engine/cri"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/registry"
)

// faulty is appended to a configuration that nothing else is wrong with.
const faulty = "nonsense = true\n"

// supervised are the variables of a service that systemd waits for: such a daemon starts without a
// configuration that it can use.
func supervised(t *testing.T) []string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return []string{"NOTIFY_SOCKET=" + socket}
}

// through pulls a new image, and checks whether sidemirror or only the registry served it.
func (k *killing) through(t *testing.T, sidemirror bool, pull func(repository string) error) {
	t.Helper()
	image := k.push(t)
	if err := pull(image.Repository); err != nil {
		t.Fatal(err)
	}
	if _, ours := k.upstream.Requests("/v2/" + image.Repository + "/"); (ours > 0) != sidemirror {
		t.Errorf("sidemirror made %d requests for %s", ours, image.Repository)
	}
}

// withoutConfiguration pulls while the daemon refuses every request, and after the file was repaired.
func (k *killing) withoutConfiguration(t *testing.T, o harness.Options, pull func(repository string) error) {
	t.Helper()
	o.Env, o.Extra = supervised(t), faulty
	s := harness.Start(t, o)
	defer s.Stop()
	k.through(t, false, pull)
	if !strings.Contains(s.Log(), "every request is refused until it is repaired") {
		t.Errorf("the log does not report it:\n%s", s.Log())
	}
	good := o
	good.Extra = ""
	s.Reload(good)
	s.Eventually("the repaired configuration is in force", func() bool { return strings.Contains(s.Log(), "msg=serving") })
	k.through(t, true, pull)

	// From here on there is a good one, which stays in force.
	s.Reload(o)
	s.Eventually("the fault is reported", func() bool { return strings.Contains(s.Log(), "the last good one stays in force") })
	k.through(t, true, pull)
}

func TestContainerdPullsWhileSidemirrorHasNoConfiguration(t *testing.T) {
	engine.NeedRoot(t)
	upstream := registry.Start(t, registry.Options{})
	o := harness.Options{
		Listen:     []string{harness.FreeAddress(t)},
		Registries: []harness.Registry{{Name: upstream.Host, Upstreams: []string{upstream.URL.String()}}},
	}
	k := &killing{upstream: upstream}
	first := harness.Start(t, o)
	h := newHost(t, first)
	h.run(t, "apply")
	first.Stop()
	c := engine.StartContainerd(t, h.certs())
	for client, pull := range map[string]func(repository string) error{
		"ctr": func(repository string) error {
			return c.Pull(t.Context(), upstream.Reference(repository)+":v1", "")
		},
		"CRI": func(repository string) error {
			_, err := cri.Pull(t.Context(), c.Socket, upstream.Reference(repository)+":v1", "", "")
			return err
		},
	} {
		t.Run(client, func(t *testing.T) { k.withoutConfiguration(t, o, pull) })
	}
}

func TestDockerPullsWhileSidemirrorHasNoConfiguration(t *testing.T) {
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
	k := &killing{upstream: hub}
	first := harness.Start(t, o)
	h := newHost(t, first)
	h.run(t, "apply")
	first.Stop()
	docker := engine.StartDocker(t, engine.DockerOptions{
		Config: h.docker(),
		Hosts:  ip + " registry-1.docker.io\n127.0.0.1 localhost\n",
		CA:     hub.CA,
	})
	k.withoutConfiguration(t, o, func(repository string) error { return docker.Pull(t.Context(), repository+":v1", "") })
}
