package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/observe"
)

// follower is a Tracer that remembers spans.
type follower struct {
	mu      sync.Mutex
	all     []*followed
	parents []string
}

// followed is a span of a follower.
type followed struct {
	of     *follower
	name   string
	parent *followed
	step   observe.Step
	result observe.Result
	ended  int
}

func (f *follower) add(s *followed) *followed {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.of = f
	f.all = append(f.all, s)
	return s
}

func (f *follower) Begin(r *observe.Request, traceparent string) observe.Span {
	f.mu.Lock()
	f.parents = append(f.parents, traceparent)
	f.mu.Unlock()
	return f.add(&followed{name: r.Method + " " + r.Kind})
}

func (s *followed) Begin(step observe.Step) observe.Span {
	name := [...]string{"exchange", "token", "ahead", "lookup", "connect", "handshake"}[step.Kind]
	return s.of.add(&followed{name: name, parent: s, step: step})
}

func (s *followed) End(r observe.Result) {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	if s.ended++; s.ended == 1 {
		s.result = r
		if r.Request != nil {
			s.result.Request = new(*r.Request)
		}
	}
}

// path returns the span's name with those that it is part of.
func (s *followed) path() string {
	if s.parent == nil {
		return s.name
	}
	return s.parent.path() + " > " + s.name
}

// paths waits until all spans have ended, and returns their paths.
func (f *follower) paths(t *testing.T) (list []string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		open := slices.IndexFunc(f.all, func(s *followed) bool { return s.ended == 0 })
		if open < 0 || time.Now().After(deadline) {
			defer f.mu.Unlock()
			for _, s := range f.all {
				if s.ended == 0 {
					t.Errorf("%s has not ended", s.path())
				}
				list = append(list, s.path())
			}
			return list
		}
		f.mu.Unlock()
	}
}

// hub is an upstream with a token server, which redirects blobs to a store of another origin.
type hub struct {
	blob, store string
	mu          sync.Mutex
	headers     []http.Header
}

func (h *hub) seen(r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.headers = append(h.headers, r.Header.Clone())
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.seen(r)
	switch {
	case r.Header.Get("Authorization") != "Bearer secret-token":
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token?account=secret-account",service="hub"`, r.Host))
		if r.URL.Path == "/token" {
			_, _ = io.WriteString(w, `{"token":"secret-token","expires_in":300}`)
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
	case strings.Contains(r.URL.Path, "/blobs/"):
		http.Redirect(w, r, h.store+"/secret-path?signature=secret-signature", http.StatusTemporaryRedirect)
	default:
		manifestHandler(w, r)
	}
}

// startHub returns a hub and the handler of it.
func startHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{blob: strings.Repeat("layer ", 1000)}
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.seen(r)
		_, _ = io.WriteString(w, h.blob)
	}))
	t.Cleanup(store.Close)
	u, err := url.Parse(store.URL)
	if err != nil {
		t.Fatal(err)
	}
	h.store = "http://localhost:" + u.Port()
	return h
}

func TestARequestIsFollowedThroughTokensConnectionsAndUpstreams(t *testing.T) {
	t.Parallel()
	h, f := startHub(t), &follower{}
	g := newRig(t, func(c *Config) {
		observed(t, &recorder{})(c)
		c.Tracer = f
	}, h.ServeHTTP)
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	blob := "/v2/library/a/blobs/" + digest.FromString(h.blob).String()
	g.do(t, "GET", "/v2/library/a/manifests/v1", "Traceparent", parent, "Baggage", "secret=1")
	g.do(t, "GET", blob)
	paths := f.paths(t)
	for _, want := range []string{
		"GET manifest > exchange", "GET manifest > exchange > connect", "GET manifest > token > exchange",
		"GET blob > exchange", "GET blob > exchange > lookup", "GET blob > exchange > connect",
	} {
		if !slices.Contains(paths, want) {
			t.Errorf("no span %q in %q", want, paths)
		}
	}
	if n := len(slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return !strings.HasSuffix(p, "> token") })); n != 1 {
		t.Errorf("%d tokens in %q, want 1", n, paths)
	}
	if f.parents[0] != parent || f.parents[1] != "" {
		t.Errorf("the callers' traces are %q", f.parents)
	}
	for _, s := range f.all {
		if text := fmt.Sprintf("%+v %+v", s.step, s.result); strings.Contains(text, "secret") {
			t.Errorf("%s has a secret: %s", s.path(), text)
		}
		if s.step.Redirected && (s.result.Status != 200 || s.result.Bytes != int64(len(h.blob))) {
			t.Errorf("the store's response is reported as %+v", s.result)
		}
	}
	last := f.all[slices.IndexFunc(f.all, func(s *followed) bool { return s.name == "GET blob" })].result.Request
	if last == nil || last.Bytes != int64(len(h.blob)) || last.Source != observe.Upstream || last.Status != 200 {
		t.Errorf("the layer's request is reported as %+v", last)
	}
	for _, header := range h.headers {
		for _, name := range []string{"Traceparent", "Tracestate", "Baggage", "B3", "X-B3-Traceid", "Uber-Trace-Id"} {
			if header.Get(name) != "" {
				t.Errorf("an upstream got %s: %s", name, header.Get(name))
			}
		}
	}
}

func TestAnUntrustedCallerDoesNotChooseTheTrace(t *testing.T) {
	t.Parallel()
	h, f := startHub(t), &follower{}
	g := newRig(t, func(c *Config) { c.Tracer, c.Trust = f, nil }, h.ServeHTTP)
	g.do(t, "GET", "/v2/library/a/manifests/v1", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if f.paths(t); len(f.parents) != 1 || f.parents[0] != "" {
		t.Errorf("the callers' traces are %q", f.parents)
	}
}

func TestAFailedConnectionIsFollowedToItsEnd(t *testing.T) {
	t.Parallel()
	f := &follower{}
	g := newRig(t, func(c *Config) {
		c.Tracer = f
		// No program listens there. A port that was just closed may be another test's by now.
		u := &url.URL{Scheme: "http", Host: "127.0.0.1:1"}
		c.Registries[0].Upstreams = []config.Upstream{config.NewUpstream(u)}
	})
	g.do(t, "GET", "/v2/library/a/manifests/v1")
	f.paths(t)
	for _, s := range f.all {
		switch s.name {
		case "exchange", "connect":
			if !s.result.Failed || s.result.Reason != "connection refused" {
				t.Errorf("%s ended with %+v", s.path(), s.result)
			}
		}
	}
	if len(f.all) != 3 {
		t.Errorf("the spans are %q", f.paths(t))
	}
}

// discarding is a ResponseWriter that needs no memory for what is written.
type discarding struct{ header http.Header }

func (d discarding) Header() http.Header         { return d.header }
func (d discarding) Write(b []byte) (int, error) { return len(b), nil }
func (discarding) WriteHeader(int)               {}

// warmManifest returns a function that asks for a stored manifest.
func warmManifest(tb testing.TB) func() {
	tb.Helper()
	up := httptest.NewServer(http.HandlerFunc(manifestHandler))
	tb.Cleanup(up.Close)
	p := storing(tb, up.URL)
	r := httptest.NewRequest(http.MethodGet, "/v2/library/a/manifests/"+digest.FromString(aManifest).String(), nil)
	r.Host = "localhost"
	w := discarding{http.Header{}}
	return func() {
		clear(w.header)
		p.ServeHTTP(w, r)
	}
}

// storing returns a proxy that stores what the upstream at a URL has.
func storing(tb testing.TB, upstream string, change ...func(*Config)) *Proxy {
	tb.Helper()
	u, err := url.Parse(upstream)
	if err != nil {
		tb.Fatal(err)
	}
	dir, err := cache.Open(tb.TempDir(), cache.Limits{})
	if err != nil {
		tb.Fatal(err)
	}
	reg := config.NewRegistry("docker.io")
	reg.Upstreams = []config.Upstream{config.NewUpstream(u)}
	c := Config{Registries: []config.Registry{reg}, Default: "docker.io", Cache: dir}
	for _, f := range change {
		f(&c)
	}
	p, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		p.Close()
		_ = dir.Close()
	})
	return p
}

func TestNotFollowingARequestNeedsNoMemory(t *testing.T) {
	line := accessLine{http: httptest.NewRequest(http.MethodGet, "/v2/library/a/manifests/v1", nil)}
	allocations := func(p *Proxy) float64 {
		return testing.AllocsPerRun(1000, func() {
			p.follow(&line)
			ctx, step := observe.Begin(observe.WithSpan(line.http.Context(), line.span), observe.Step{Host: "registry.example"})
			if step != nil {
				step.End(observe.Result{})
			}
			observe.SpanOf(ctx)
		})
	}
	if n := allocations(&Proxy{}); n != 0 {
		t.Errorf("without a tracer %v allocations, want none", n)
	}
	if n := allocations(&Proxy{tracer: &follower{}}); n == 0 {
		t.Error("a tracer that follows the request costs nothing: the comparison proves nothing")
	}
}

func BenchmarkWarmManifest(b *testing.B) {
	ask := warmManifest(b)
	ask()
	b.ReportAllocs()
	for b.Loop() {
		ask()
	}
}
