package cache

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/engine/cri"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/registry"
)

// upstream is a real registry that ends with the subtest in which it was started, and
// a daemon in front of it that does not.
type upstream struct {
	*harness.Sidemirror
	t       *testing.T
	hub     *registry.Registry
	options harness.Options
}

// content counts what was asked of the registry for the image's blobs.
func (u *upstream) content() int {
	all, _ := u.hub.Requests("/blobs/")
	return all
}

// nothingFetched fails the test if blobs were fetched by what is done.
func (u *upstream) nothingFetched(t *testing.T, what string, do func()) {
	t.Helper()
	before := u.content()
	do()
	if n := u.content() - before; n != 0 {
		t.Errorf("%s: the registry was asked for blobs %d times, want 0", what, n)
	}
}

func (u *upstream) again() {
	u.Stop()
	u.Sidemirror = harness.Start(u.t, u.options)
}

func TestContainerdPullsColdWarmAndWithTheUpstreamStopped(t *testing.T) {
	engine.NeedRoot(t)
	// No other registry has this name.
	const reference = "reg.test/alice/app"
	u := &upstream{t: t}
	var image registry.Image
	fresh := func(t *testing.T) *engine.Containerd {
		return engine.StartContainerd(t, certs(t, "reg.test", "http://"+u.options.Listen[0], ""))
	}
	byCTR := func(t *testing.T, what string) {
		t.Helper()
		c := fresh(t)
		if err := c.Pull(t.Context(), reference+what, ""); err != nil {
			t.Fatal(err)
		}
		holds(t, c, image)
	}
	byCRI := func(t *testing.T, what string) {
		t.Helper()
		c := fresh(t)
		if _, err := cri.Pull(t.Context(), c.Socket, reference+what, "", ""); err != nil {
			t.Fatal(err)
		}
		holds(t, c, image)
	}
	t.Run("with the upstream", func(st *testing.T) {
		u.hub = registry.Start(st, registry.Options{})
		image = u.hub.Push(st, "alice/app", "v1", registry.Shape{Index: true, Size: 4 << 20})
		u.options = harness.Options{
			Listen:     []string{harness.FreeAddress(t)},
			Registries: []harness.Registry{{Name: "reg.test", Upstreams: []string{u.hub.URL.String()}}},
			Cache:      filepath.Join(t.TempDir(), "cache"),
		}
		u.Sidemirror = harness.Start(t, u.options)
		before := u.content() // the push asks too
		byCTR(st, ":v1")
		if n := u.content() - before; n != len(image.Platform)-1 {
			st.Errorf("cold: the registry was asked for blobs %d times, the image has %d", n, len(image.Platform)-1)
		}
		u.nothingFetched(st, "warm, by ctr", func() { byCTR(st, ":v1") })
		u.nothingFetched(st, "warm, by CRI", func() { byCRI(st, "@"+image.Digest) })
	})
	if t.Failed() {
		return
	}
	byCTR(t, ":v1")
	byCRI(t, ":v1")
	u.again()
	byCTR(t, "@"+image.Digest)
	byCRI(t, "@"+image.Digest)
}

// holds fails the test unless containerd has every blob of the image.
func holds(t *testing.T, c *engine.Containerd, image registry.Image) {
	t.Helper()
	for _, d := range append([]string{image.Digest}, image.Platform...) {
		if _, err := os.Stat(filepath.Join(c.Content, strings.Replace(d, ":", "/", 1))); err != nil {
			t.Errorf("containerd says that it has pulled, and lacks %s", d)
		}
	}
}

// hubAddress is Docker Hub's address for the dockerd of this test. dockerd always uses https and
// port 443 for it.
const hubAddress = "127.79.9.9:443"

func TestDockerPullsColdWarmAndWithTheUpstreamStopped(t *testing.T) {
	engine.NeedRoot(t)
	ip, _, err := net.SplitHostPort(hubAddress)
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{t: t}
	var image registry.Image
	pull := func(t *testing.T, what string) {
		t.Helper()
		config := filepath.Join(t.TempDir(), "daemon.json")
		if err := os.WriteFile(config, fmt.Appendf(nil, `{"registry-mirrors": [%q]}`, "http://"+u.options.Listen[0]), 0o644); err != nil {
			t.Fatal(err)
		}
		d := engine.StartDocker(t, engine.DockerOptions{
			Config: config, Hosts: ip + " registry-1.docker.io\n127.0.0.1 localhost\n", CA: u.options.Registries[0].CA,
		})
		if err := d.Pull(t.Context(), "alice/app"+what, ""); err != nil {
			t.Fatal(err)
		}
		got, err := d.Image(t.Context(), "alice/app"+what)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != image.Config || len(got.RepoDigests) != 1 || !strings.HasSuffix(got.RepoDigests[0], image.Digest) {
			t.Errorf("docker has %s of %q, want %s of %s", got.ID, got.RepoDigests, image.Config, image.Digest)
		}
	}
	t.Run("with the upstream", func(st *testing.T) {
		u.hub = registry.Start(st, registry.Options{Names: []string{"registry-1.docker.io", ip}, Address: hubAddress})
		image = u.hub.Push(st, "alice/app", "v1", registry.Shape{Index: true, Docker: true, Size: 4 << 20})
		ca, err := os.ReadFile(u.hub.CA)
		if err != nil {
			st.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "ca.pem") // its own is gone with it
		if err := os.WriteFile(path, ca, 0o644); err != nil {
			st.Fatal(err)
		}
		u.options = harness.Options{
			Listen:     []string{harness.FreeAddress(t)},
			Registries: []harness.Registry{{Name: "docker.io", Upstreams: []string{u.hub.URL.String()}, CA: path}},
			Cache:      filepath.Join(t.TempDir(), "cache"),
		}
		u.Sidemirror = harness.Start(t, u.options)
		before := u.content() // the push asks too
		pull(st, ":v1")
		if n := u.content() - before; n != len(image.Platform)-1 {
			st.Errorf("cold: the registry was asked for blobs %d times, the image has %d", n, len(image.Platform)-1)
		}
		u.nothingFetched(st, "warm", func() { pull(st, ":v1") })
	})
	if t.Failed() {
		return
	}
	pull(t, ":v1")
	u.again()
	pull(t, "@"+image.Digest)
}
