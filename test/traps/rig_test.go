// Package traps shows what registries do wrong and what attackers try, each with the real binary
// between a plain client and an upstream that misbehaves on purpose. docs/design/protocol.md and
// docs/design/security.md say what is required.
package traps

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func TestMain(m *testing.M) { harness.Main(m) }

// name is the registry of most tests, repo its repository, user and password the
// login where one is needed.
const (
	name     = "r.test"
	repo     = "team/app"
	user     = "robot"
	password = "canary-password-5f3a"
)

// image is what is in team/app, under v1: a config, one layer of a megabyte and
// one small.
var image = quirky.NewImage(false, "traps", 1<<20, 100)

// layer is its large layer.
var layer = image.Blobs[1]

// rig is a daemon in front of an upstream.
type rig struct {
	*harness.Sidemirror
	up *quirky.Server
	t  *testing.T
}

// withLogin are the options of an upstream whose repositories need a login.
func withLogin(scheme string) quirky.Options {
	return quirky.Options{Auth: quirky.Auth{Scheme: scheme, Users: map[string]string{user: password}, Private: []string{""}}}
}

// start is startCold, and returns once the daemon has looked whether its upstream
// is there, so that tests count only what they made it ask.
func start(t *testing.T, o quirky.Options, change func(up *quirky.Server, h *harness.Options)) *rig {
	t.Helper()
	r := startCold(t, o, change)
	r.Eventually("the daemon looks whether its upstream is there", func() bool {
		seen := r.up.Requests(quirky.Registry, "", "/v2/")
		return len(seen) > 0 && seen[0].Done
	})
	r.up.Forget()
	return r
}

// uncached is for tests that count what one and the same pull asks each time.
func uncached(_ *quirky.Server, h *harness.Options) { h.Cache = "none" }

// startCold runs an upstream as o has it and a daemon with r.test in front of it,
// which knows the login where the upstream needs one. change, if not nil, sees the
// daemon's options first.
func startCold(t *testing.T, o quirky.Options, change func(up *quirky.Server, h *harness.Options)) *rig {
	t.Helper()
	up := quirky.New(t, o)
	up.Add(repo, "v1", image)
	h := harness.Options{Registries: []harness.Registry{{Name: name, Upstreams: []string{up.URL()}}}}
	if o.TLS {
		h.Registries[0].CA = caFile(t, up)
	}
	if o.Auth.ForeignHost {
		h.Registries[0].Realms = []string{up.TokenOrigin()}
	}
	if o.Auth.Users != nil {
		h.Logins = map[string]string{name: user + ":" + password}
	}
	if change != nil {
		change(up, &h)
	}
	return &rig{Sidemirror: harness.Start(t, h), up: up, t: t}
}

func caFile(t *testing.T, up *quirky.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, up.CA(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// path asks for what in team/app as containerd does.
func path(what string) string { return "/v2/" + repo + "/" + what + "?ns=" + name }

func blobPath(b quirky.Blob) string { return path("blobs/" + b.Digest.String()) }

// whole fails the test unless a is 200 with exactly want.
func (r *rig) whole(what string, a harness.Answer, want []byte) {
	r.t.Helper()
	a.Whole(r.t, what, want)
}

// status fails the test unless a has the status want.
func (r *rig) status(what string, a harness.Answer, want int) {
	r.t.Helper()
	a.Is(r.t, what, want)
}

// spoiled fails the test if a ends as if it were whole: it must be an error, or
// be cut.
func (r *rig) spoiled(what string, a harness.Answer) {
	r.t.Helper()
	a.Spoiled(r.t, what)
}

// count fails the test unless so many requests came to part.
func (r *rig) count(part quirky.Part, method, path string, want int) {
	r.t.Helper()
	if got := r.up.Count(part, method, path); got != want {
		r.t.Errorf("%d %s requests for %q came to the upstream's %s, want %d", got, method, path, part, want)
	}
}

// pull fetches the manifest v1 and every blob as an engine does, and fails the
// test unless each is whole.
func (r *rig) pull() {
	r.t.Helper()
	head := r.Do(http.MethodHead, path("manifests/v1"), nil)
	if head.Status != http.StatusOK || head.Header.Get("Docker-Content-Digest") != image.Digest.String() {
		r.t.Errorf("HEAD of v1: status %d, header %v", head.Status, head.Header)
	}
	r.whole("the manifest", r.Get(path("manifests/"+image.Digest.String()), nil), image.Bytes)
	for _, b := range image.Blobs {
		r.whole("blob "+b.Digest.String(), r.Get(blobPath(b), nil), b.Bytes)
	}
}
