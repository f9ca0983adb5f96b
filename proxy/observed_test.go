package proxy

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/observe"
)

// recorder is an Observer that remembers requests, exchanges and limits.
type recorder struct {
	observe.Nothing
	mu        sync.Mutex
	requests  []observe.Request
	exchanges []observe.Exchange
	limits    []observe.RateLimit
	opened    int // connections; a busy upstream may have closed them again
	tokens    []int
}

func (r *recorder) RequestEnded(q *observe.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, *q)
}

func (r *recorder) UpstreamResponded(e observe.Exchange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exchanges = append(r.exchanges, e)
}

func (r *recorder) RateLimited(l observe.RateLimit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limits = append(r.limits, l)
}

func (r *recorder) ConnectionsChanged(_ string, by int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opened += max(by, 0)
}

func (r *recorder) TokenExchanged(_ string, status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tokens = append(r.tokens, status)
}

// seen returns what was reported when there are n requests.
func (r *recorder) seen(t *testing.T, n int) []observe.Request {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		all := append([]observe.Request(nil), r.requests...)
		r.mu.Unlock()
		if len(all) == n {
			return all
		}
		if len(all) > n || time.Now().After(deadline) {
			t.Fatalf("%d requests were reported, want %d: %+v", len(all), n, all)
		}
	}
}

func observed(t *testing.T, o observe.Observer) func(*Config) {
	t.Helper()
	return func(c *Config) {
		dir, err := cache.Open(t.TempDir(), cache.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = dir.Close() })
		c.Cache, c.Observer = dir, o
	}
}

func TestEachRequestIsReportedWithWhereItsBytesCameFrom(t *testing.T) {
	t.Parallel()
	blob := strings.Repeat("layer ", 1000)
	dgst := digest.FromString(blob)
	o := &recorder{}
	var stored *cache.Dir
	g := newRig(t, func(c *Config) {
		observed(t, o)(c)
		stored = c.Cache
	}, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "/blobs/"+dgst.String()):
			_, _ = w.Write([]byte(blob))
		case strings.Contains(r.URL.Path, "/manifests/"):
			manifestHandler(w, r)
		default:
			http.NotFound(w, r)
		}
	})
	for i, test := range []struct {
		method, path string
		want         observe.Request
	}{
		{"GET", "/v2/library/a/manifests/v1", observe.Request{Kind: "manifest", Tag: "v1", Status: 200, Source: observe.Upstream, Bytes: int64(len(aManifest)), Digest: digest.FromString(aManifest).String()}},
		{"GET", "/v2/library/a/blobs/" + dgst.String(), observe.Request{Kind: "blob", Status: 200, Cache: "fill", Source: observe.Upstream, Bytes: int64(len(blob)), Digest: dgst.String()}},
		{"GET", "/v2/library/a/blobs/" + dgst.String(), observe.Request{Kind: "blob", Status: 200, Cache: "hit", Source: observe.Cache, Bytes: int64(len(blob)), Digest: dgst.String()}},
		{"HEAD", "/v2/library/a/blobs/" + dgst.String(), observe.Request{Kind: "blob", Status: 200, Cache: "hit", Source: observe.Cache, Digest: dgst.String()}},
		{"HEAD", "/v2/library/a/blobs/" + digest.FromString("other").String(), observe.Request{Kind: "blob", Status: 404, Digest: digest.FromString("other").String(), Failed: true}},
	} {
		g.do(t, test.method, test.path, "User-Agent", "containerd/2.1.4")
		got := o.seen(t, i+1)[i]
		if test.want.Kind == "manifest" {
			got.Cache = "" // "fill" or not, depending on how it is stored
		}
		for deadline := time.Now().Add(20 * time.Second); got.Cache == "fill" && !stored.HasBlob(dgst) && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond) // it is stored a little later
		}
		want := test.want
		want.Registry, want.Repository, want.Method, want.UserAgent = "docker.io", "library/a", test.method, "containerd/2.1.4"
		want.Trusted, want.UID, want.Remote, want.Started, want.Duration = got.Trusted, got.UID, got.Remote, got.Started, got.Duration
		if got != want {
			t.Errorf("%s %s:\n got %+v\nwant %+v", test.method, test.path, got, want)
		}
		if !got.Trusted || got.UID < 0 || got.Duration <= 0 || got.Started.IsZero() || got.Remote == "" {
			t.Errorf("%s %s: the caller or the time is missing: %+v", test.method, test.path, got)
		}
	}
}

func TestExchangesAgreeWithTheUpstreamsOwnCount(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	asked := map[int]int{}
	count := func(status int) {
		mu.Lock()
		defer mu.Unlock()
		asked[status]++
	}
	o := &recorder{}
	g := newRig(t, observed(t, o), func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			count(200)
			_, _ = w.Write([]byte(`{"token":"x"}`))
		case r.Header.Get("Authorization") == "":
			count(401)
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="x"`)
			w.WriteHeader(401)
		case strings.Contains(r.URL.Path, "/manifests/missing"):
			count(404)
			http.NotFound(w, r)
		default:
			count(200)
			w.Header().Set("RateLimit-Limit", "100;w=21600")
			w.Header().Set("RateLimit-Remaining", "73;w=21600")
			manifestHandler(w, r)
		}
	})
	for _, path := range []string{"v1", "v2", "missing", "v1"} {
		g.do(t, "GET", "/v2/library/a/manifests/"+path)
	}
	o.seen(t, 4)
	o.mu.Lock()
	defer o.mu.Unlock()
	mu.Lock()
	defer mu.Unlock()
	got := map[int]int{}
	for _, e := range o.exchanges {
		got[e.Status]++
	}
	for status, n := range asked {
		if got[status] != n || len(got) != len(asked) {
			t.Errorf("reported %v, the upstream counted %v", got, asked)
		}
	}
	if len(o.tokens) == 0 || o.tokens[0] != 200 || o.opened == 0 {
		t.Errorf("tokens %v, %d connections", o.tokens, o.opened)
	}
	if len(o.limits) == 0 || o.limits[0].Remaining != 73 || o.limits[0].Limit != 100 || o.limits[0].Window != 6*time.Hour ||
		o.limits[0].Identity != "anonymous" || o.limits[0].Registry != "docker.io" {
		t.Errorf("limits %+v", o.limits)
	}
}

func TestTheDaemonsOwnRequestsAreNotReported(t *testing.T) {
	t.Parallel()
	o := &recorder{}
	g := newRig(t, observed(t, o), manifestHandler)
	own := g.Config.Handler
	g.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Own") != "" {
			r = r.WithContext(Unlogged(r.Context()))
		}
		own.ServeHTTP(w, r)
	})
	g.do(t, "GET", "/v2/", "X-Own", "yes")
	g.do(t, "GET", "/v2/")
	o.seen(t, 1)
}
