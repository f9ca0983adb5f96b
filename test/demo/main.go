// Demo shows one pull from end to end: an upstream registry that wants a token and
// keeps its blobs on another host, a host tree that sidemirror configures, and
// containerd's own resolver, which reads that configuration and pulls a private
// image without a password of its own. Then everything is taken back.
//
// It needs Go alone. As root on a machine with containerd and Docker it has them
// pull too, started by hand in folders of their own.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

const (
	registryName = "registry.demo"
	repository   = "alice/hello"
	reference    = registryName + "/" + repository + ":v1"
	user         = "alice"
	password     = "correct-horse-battery-staple"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(play(ctx, newPaint(os.Stdout), story))
}

func story(s *scene) {
	s.title("A container engine pulls a private image for which it has no password")

	s.chapter("A registry, somewhere else")
	upstream := quirky.New(s, quirky.Options{
		Auth: quirky.Auth{
			Scheme: "Bearer", Users: map[string]string{user: password}, Private: []string{""},
			ForeignHost: true, RefuseAnonymous: true,
		},
		Blobs: quirky.Blobs{Redirect: 307, RefuseAuthorization: true, OneUse: true},
	})
	// The seed "arm64" is what names that platform; an index of both serves every machine.
	first, second := quirky.NewImage(false, "hello", 700<<10, 1400<<10), quirky.NewImage(false, "arm64", 500<<10)
	image := quirky.NewIndex(false, first, second)
	upstream.Add(repository, "v1", image)
	s.fact("registry", "%s, nothing without a token", upstream.URL())
	s.fact("token server", "%s, knows %s and her password", upstream.TokenOrigin(), user)
	s.fact("blob store", "%s, by signed URL; answers 400 to any Authorization", upstream.BlobOrigin())
	s.fact("image", "%s  %s", reference, short(image.Digest.String()))

	s.chapter("A host, as its owner left it")
	h := newHost(s)
	before := h.show(s)

	s.chapter("sidemirror gets the registry in its configuration and configures the engines")
	m := newSidemirror(s, h, upstream)
	m.configure(s)
	// A login belongs to the host that it is sent to, which here is not the registry's name.
	m.run(s, "login", "--username", user, "--password-stdin", strings.TrimPrefix(upstream.URL(), "http://"))
	m.plan(s, "etc/docker/daemon.json", "etc/containerd/certs.d/quay.io/hosts.toml", "etc/containerd/certs.d/"+registryName+"/hosts.toml")
	m.run(s, "apply", "--root", h.root)
	m.serve(s)

	s.chapter("containerd's resolver reads " + h.short("etc/containerd/certs.d") + " and pulls")
	upstream.Forget()
	engine := newPuller(s, h.path("etc/containerd/certs.d"))
	pulled := engine.pull(s, reference)
	asked := upstream.All()
	tell(s, engine.requests, asked)

	s.chapter("What that shows")
	s.check(pulled.parts > 0 && pulled.digest == image.Digest, "%d parts, %s: each has the digest that names it", pulled.parts, size(pulled.bytes))
	checkEngine(s, engine.requests, m.address)
	checkUpstream(s, asked)
	checkLog(s, m, engine.requests)

	realEngines(s, h, m)

	s.chapter("Everything is given back")
	m.stop(s)
	m.run(s, "revert", "--root", h.root)
	s.gap()
	after := h.show(s)
	s.check(after == before, "names, modes and bytes of the whole tree are as before")
	s.close()
}

// newSidemirror is the real binary with a configuration of its own: from `make
// demo` in $SIDEMIRROR_BINARY, else built now.
func newSidemirror(s *scene, h *host, upstream *quirky.Server) *sidemirror {
	binary := harness.Binary(s)
	if !harness.Given() {
		// The harness built it for a test process, at whose end it would be removed.
		s.Cleanup(func() { s.must(os.Remove(binary), os.Remove(filepath.Dir(binary))) })
	}
	return &sidemirror{
		binary:  binary,
		folder:  s.TempDir(),
		address: harness.FreeAddress(s),
		host:    h,
		registries: fmt.Sprintf("upstreams = [%q]\nrealms = [%q]    # may be sent the password\n",
			upstream.URL(), upstream.TokenOrigin()),
	}
}

// platform is what the resolver picks from an index.
func platform() string { return "linux/" + runtime.GOARCH }
