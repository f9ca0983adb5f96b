// Package shared tests the store that hosts share: the real binary, several hosts with a cache each,
// object storages of two makers, and one whose faults a proxy in front of it makes.
package shared

import (
	"io"
	"log"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	name = "r.test"
	repo = "team/app"

	// large is the size of a blob that hosts claim and that comes over several connections.
	large = 20<<20 + 12345
)

// blob is a layer.
type blob struct{ quirky.Blob }

func newBlob(seed string, size int) blob {
	b := quirky.Bytes(seed, size)
	return blob{quirky.Blob{MediaType: v1.MediaTypeImageLayer, Bytes: b, Digest: digest.FromBytes(b)}}
}

// object is the name that a blob has in the store.
func (b blob) object() string { return b.named("blobs") }

func (b blob) named(kind string) string {
	return strings.Join([]string{kind, "sha256", b.Digest.Encoded()[:2], b.Digest.Encoded()}, "/")
}

func (b blob) path(repo string) string {
	return "/v2/" + repo + "/blobs/" + b.Digest.String() + "?ns=" + name
}

// upstream is a registry that counts what it sends of blobs.
type upstream struct {
	*quirky.Server
	mu      sync.Mutex
	gets    int // requests for blobs
	holding bool
}

func newUpstream(t *testing.T, o quirky.Options, blobs map[string][]blob) *upstream {
	t.Helper()
	u := &upstream{}
	o.Intercept = func(part quirky.Part, w http.ResponseWriter, r *http.Request) bool {
		if part == quirky.Registry && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			u.mu.Lock()
			u.gets++
			holding := u.holding
			u.mu.Unlock()
			if holding {
				<-r.Context().Done()
			}
		}
		return false
	}
	u.Server = quirky.New(t, o)
	for repo, list := range blobs {
		u.add(repo, list...)
	}
	return u
}

// add makes a repository have blobs.
func (u *upstream) add(repo string, blobs ...blob) {
	text := "{"
	var list []quirky.Blob
	for _, b := range blobs {
		text += b.Digest.String()
		list = append(list, b.Blob)
	}
	manifest := quirky.Raw(v1.MediaTypeImageManifest, []byte(text))
	manifest.Blobs = list
	u.Add(repo, "v1", manifest)
}

// hold makes the registry respond to no request for the content of a blob from now on. What hosts get
// then is from the store, however slow this machine is.
func (u *upstream) hold() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.holding = true
}

// requests returns how many requests for blobs came.
func (u *upstream) requests() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.gets
}

// host runs a daemon in front of a registry, with a cache of its own and a shared store.
func host(t *testing.T, u string, s *store, change ...func(o *harness.Options)) *harness.Sidemirror {
	t.Helper()
	o := harness.Options{
		Registries: []harness.Registry{{Name: name, Upstreams: []string{u}}},
		Cache:      filepath.Join(t.TempDir(), "cache"),
		Env:        environment(secretKey),
		Secrets:    []string{secretKey},
		Extra:      s.config(),
	}
	for _, f := range change {
		f(&o)
	}
	return harness.Start(t, o)
}

// pull fails the test unless the host serves a blob, to the byte.
func pull(t *testing.T, h *harness.Sidemirror, b blob) {
	t.Helper()
	h.Get(b.path(repo), nil).Whole(t, b.Digest.String(), b.Bytes)
}

// watched is a host whose metrics show which problems it reports.
type watched struct {
	*harness.Sidemirror
	t       *testing.T
	metrics string
}

func watchedHost(t *testing.T, u string, s *store, change ...func(o *harness.Options)) watched {
	t.Helper()
	metrics := harness.FreeAddress(t)
	add := func(o *harness.Options) { o.Extra += "\n[metrics]\nlisten = [\"" + metrics + "\"]\n" }
	return watched{host(t, u, s, append(change, add)...), t, "http://" + metrics + "/metrics"}
}

// reports waits until the host reports a problem of a code, or of one that begins so.
func (w watched) reports(code string) {
	w.t.Helper()
	eventually(w.t, "the problem "+code+" is reported", func() bool { return w.shows(`sidemirror_problems{code="` + code) })
}

// shows reports whether the metrics have a line that begins so.
func (w watched) shows(line string) bool {
	w.t.Helper()
	a := harness.Fetch(harness.Client(w.t), http.MethodGet, w.metrics, nil)
	return strings.Contains(string(a.Body), "\n"+line)
}

// faulty is a proxy in front of a store that fails as it is set to.
type faulty struct {
	*store
	mu    sync.Mutex
	fault func(w http.ResponseWriter, r *http.Request, pass http.Handler)
}

func (f *faulty) set(fault func(w http.ResponseWriter, r *http.Request, pass http.Handler)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// serve passes requests on, unless there is a fault.
func (f *faulty) serve(pass http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		fault := f.fault
		f.mu.Unlock()
		if fault == nil {
			pass.ServeHTTP(w, r)
			return
		}
		fault(w, r, pass)
	}
}

func mustParse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// quiet drops what proxies log about clients that leave.
var quiet = log.New(io.Discard, "", 0)
