// Package cache looks at the cache from outside: the real binary between plain
// clients or real engines and an upstream that can be counted, broken and taken
// away, and the folder in which the content is kept.
package cache

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

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
	password = "canary-password-9c1e"
)

// image is what is in team/app, under v1: a config, one layer of a megabyte and
// one small.
var image = quirky.NewImage(false, "cache", 1<<20, 100)

// layer is its large layer.
var layer = image.Blobs[1]

// rig is a daemon in front of an upstream.
type rig struct {
	*harness.Sidemirror
	up      *quirky.Server
	t       *testing.T
	folder  string // what is kept is there
	options harness.Options
}

// start runs an upstream as o has it and a daemon with r.test in front of it, which
// knows the login where the upstream has users. change, if not nil, sees the
// daemon's options first. What the daemon asks at its start is not counted.
func start(t *testing.T, o quirky.Options, change func(up *quirky.Server, h *harness.Options)) *rig {
	t.Helper()
	up := quirky.New(t, o)
	up.Add(repo, "v1", image)
	h := harness.Options{
		Registries: []harness.Registry{{Name: name, Upstreams: []string{up.URL()}}},
		Cache:      filepath.Join(t.TempDir(), "cache"),
	}
	if o.TLS {
		h.Registries[0].CA = filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(h.Registries[0].CA, up.CA(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if o.Auth.Users != nil {
		h.Logins = map[string]string{name: user + ":" + password}
	}
	if change != nil {
		change(up, &h)
	}
	return run(t, up, h)
}

func run(t *testing.T, up *quirky.Server, h harness.Options) *rig {
	t.Helper()
	up.Forget()
	r := &rig{Sidemirror: harness.Start(t, h), up: up, t: t, folder: h.Cache, options: h}
	r.Eventually("the daemon looks whether its upstream is there", func() bool {
		seen := up.Requests(quirky.Registry, "", "/v2/")
		return len(seen) > 0 && seen[0].Done
	})
	up.Forget()
	return r
}

// restart stops the daemon and starts another on the same folder, with what change
// makes of its options.
func (r *rig) restart(change func(h *harness.Options)) *rig {
	r.t.Helper()
	r.Stop()
	h := r.options
	if change != nil {
		change(&h)
	}
	return run(r.t, r.up, h)
}

// private are the options of an upstream whose team/… needs a login.
func private(scheme string) quirky.Options {
	return quirky.Options{Auth: quirky.Auth{Scheme: scheme, Users: map[string]string{user: password}, Private: []string{"team/"}}}
}

// env are options with these keys of [cache] set, as "tag_ttl=1h".
func env(keys ...string) func(*quirky.Server, *harness.Options) {
	return func(_ *quirky.Server, h *harness.Options) {
		for _, k := range keys {
			key, value, _ := strings.Cut(k, "=")
			h.Env = append(h.Env, "SIDEMIRROR_CACHE_"+strings.ToUpper(key)+"="+value)
		}
	}
}

// set changes a key of [cache] in the file of the running daemon and has it read.
func (r *rig) set(key, value string) {
	r.t.Helper()
	file := filepath.Join(r.Dir(), "config.toml")
	config, err := os.ReadFile(file)
	if err != nil {
		r.t.Fatal(err)
	}
	config = regexp.MustCompile("(?m)^"+key+" = .*\n").ReplaceAll(config, nil)
	changed := bytes.Replace(config, []byte("[cache]\n"), []byte("[cache]\n"+key+" = "+strconv.Quote(value)+"\n"), 1)
	if err := os.WriteFile(file+".new", changed, 0o644); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		r.t.Fatal(err)
	}
	if err := syscall.Kill(r.PID(), syscall.SIGHUP); err != nil {
		r.t.Fatal(err)
	}
}

// away makes the upstream break every connection, here brings it back.
func (r *rig) away() { r.up.Set(func(o *quirky.Options) { o.Intercept = hangUp }) }
func (r *rig) here() { r.up.Set(func(o *quirky.Options) { o.Intercept = nil }) }

func hangUp(_ quirky.Part, w http.ResponseWriter, _ *http.Request) bool {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		conn.Close()
	}
	return true
}

// answers makes the upstream answer everything with a status.
func (r *rig) answers(status int) {
	r.up.Set(func(o *quirky.Options) {
		o.Intercept = func(_ quirky.Part, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(status)
			return true
		}
	})
}

// path asks for what in a repository as containerd does.
func path(repository, what string) string { return "/v2/" + repository + "/" + what + "?ns=" + name }

func blobPath(b quirky.Blob) string { return path(repo, "blobs/"+b.Digest.String()) }

// byTag and byDigest are the paths of image.
func byTag() string    { return path(repo, "manifests/v1") }
func byDigest() string { return path(repo, "manifests/"+image.Digest.String()) }

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

// spoiled fails the test if a ends as if it were whole: it must be an error, or be
// cut.
func (r *rig) spoiled(what string, a harness.Answer) {
	r.t.Helper()
	a.Spoiled(r.t, what)
}

// asked fails the test unless so many requests with a path like that came to the
// upstream's registry.
func (r *rig) asked(method, path string, want int) {
	r.t.Helper()
	if got := r.up.Count(quirky.Registry, method, path); got != want {
		r.t.Errorf("the upstream was asked %d times to %s %q, want %d", got, method, path, want)
	}
}

// askedNothing fails the test if anything came to the upstream.
func (r *rig) askedNothing(what string) {
	r.t.Helper()
	for _, q := range r.up.All() {
		r.t.Errorf("%s made us ask the upstream: %s %s", what, q.Method, q.Path)
	}
}

// pull fetches v1 and every blob as containerd does, and fails the test unless each
// is whole.
func (r *rig) pull() {
	r.t.Helper()
	r.pullAs(harness.Client(r.t), repo, image)
}

func (r *rig) pullAs(client *http.Client, repository string, i quirky.Image) {
	r.t.Helper()
	head := r.DoWith(client, http.MethodHead, path(repository, "manifests/v1"), nil)
	if head.Status != http.StatusOK || head.Header.Get("Docker-Content-Digest") != i.Digest.String() {
		r.t.Errorf("HEAD of %s:v1: status %d, header %v", repository, head.Status, head.Header)
	}
	r.whole("the manifest", r.DoWith(client, "GET", path(repository, "manifests/"+i.Digest.String()), nil), i.Bytes)
	for _, b := range i.Blobs {
		r.whole("blob "+b.Digest.String(), r.DoWith(client, "GET", path(repository, "blobs/"+b.Digest.String()), nil), b.Bytes)
	}
}

// composed is an image whose manifest lists these blobs.
func composed(blobs ...quirky.Blob) quirky.Image {
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	for i, b := range blobs {
		d := v1.Descriptor{MediaType: b.MediaType, Digest: b.Digest, Size: int64(len(b.Bytes))}
		if i == 0 {
			m.Config = d
		} else {
			m.Layers = append(m.Layers, d)
		}
	}
	body, err := json.Marshal(m)
	if err != nil {
		panic(err) // of strings and numbers alone
	}
	i := quirky.Raw(m.MediaType, body)
	i.Blobs = blobs
	return i
}
