package access

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// serve starts a daemon in front of one upstream and returns the registry's name.
func serve(t *testing.T, upstream string, extra ...string) (s *harness.Sidemirror, name, folder string) {
	t.Helper()
	u, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	folder = filepath.Join(t.TempDir(), "cache")
	s = harness.Start(t, harness.Options{
		Registries: []harness.Registry{{Name: u.Host, Upstreams: []string{upstream}}},
		Cache:      folder,
		Env:        extra,
	})
	return s, u.Host, folder
}

// size returns the bytes and the number of files and folders below a folder.
func size(t *testing.T, folder string) (bytes int64, entries int) {
	t.Helper()
	err := filepath.WalkDir(folder, func(_ string, e fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		entries++
		if info, infoErr := e.Info(); err == nil && infoErr == nil && !e.IsDir() {
			bytes += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes, entries
}

func TestListsThatUntrustedCallersAskForDoNotFillTheDisk(t *testing.T) {
	var mu sync.Mutex
	queries := map[string]bool{}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		queries[r.URL.RawQuery] = true
		mu.Unlock()
		_, _ = io.WriteString(w, `{"name":"x","tags":["1"]}`)
	}))
	defer upstream.Close()
	s, name, folder := serve(t, upstream.URL, "SIDEMIRROR_CACHE_MAX_SIZE=20MiB")
	clients := make([]*http.Client, 8)
	for i := range clients {
		clients[i] = untrusted(t)
	}
	const each = 400
	harness.Together(len(clients), func(c int) {
		for i := range each {
			n := c*each + i
			s.DoWith(clients[c], "GET", of(name, "tags/list")+fmt.Sprintf("&x=%d&last=%d", n, n), nil)
			s.DoWith(clients[c], "GET", fmt.Sprintf("/v2/library/r%d/tags/list?ns=%s", n, name), nil)
		}
	})
	bytes, entries := size(t, folder)
	t.Logf("%d bytes in %d files and folders after %d requests", bytes, entries, 2*len(clients)*each)
	if entries > 2000 {
		t.Errorf("%d files and folders for lists alone", entries)
	}
	for q := range queries {
		if strings.Contains(q, "x=") {
			t.Errorf("the upstream is asked with the query %q", q)
			break
		}
	}
}

func TestHeadersOfACallerReachNoUpstream(t *testing.T) {
	var longest, foreign atomic.Int64
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accept := strings.Join(r.Header.Values("Accept"), ",")
		longest.Store(max(longest.Load(), int64(len(accept))))
		if strings.Contains(accept, "x-made-up") || r.Header.Get("X-Custom") != "" {
			foreign.Add(1)
		}
		w.Header().Set("Content-Type", image.MediaType)
		w.Header().Set("Docker-Content-Digest", image.Digest.String())
		_, _ = w.Write(image.Bytes)
	}))
	defer upstream.Close()
	s, name, _ := serve(t, upstream.URL)
	huge := strings.Repeat("application/x-made-up+json, ", 1000) + image.MediaType
	for _, what := range []string{"manifests/v1", "manifests/" + image.Digest.String(), "tags/list", "blobs/" + layer.Digest.String()} {
		s.DoWith(untrusted(t), "GET", of(name, what), http.Header{"Accept": {huge}, "X-Custom": {"x"}})
	}
	if longest.Load() > 1024 || foreign.Load() > 0 {
		t.Errorf("the upstream got an Accept of %d bytes, %d requests with what the caller made up", longest.Load(), foreign.Load())
	}
}

// memory returns the daemon's peak of resident memory, in MiB.
func memory(t *testing.T, s *harness.Sidemirror) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmHWM in %s", status)
	}
	kib, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kib >> 10
}

func TestReadersThatDoNotReadTakeBoundedMemory(t *testing.T) {
	const readers = 150
	list := []byte(`{"name":"x","tags":["` + strings.Repeat("x", 7<<20) + `"]}`)
	var asked atomic.Int64
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(list)
		asked.Add(1)
	}))
	defer upstream.Close()
	s, name, _ := serve(t, upstream.URL)
	before := asked.Load()
	dial := harness.DialAs(t, harness.Untrusted)
	for range readers {
		conn, err := dial(t.Context(), "tcp", s.Address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", of(name, "tags/list"))
	}
	s.Eventually("every reader's request is served or refused", func() bool { return asked.Load()-before >= readers })
	if mib := memory(t, s); mib > 500 {
		t.Errorf("%d silent readers of 7 MiB take %d MiB", readers, mib)
	}
	// An engine is served meanwhile.
	s.Get(of(name, "tags/list"), nil).Whole(t, "a trusted caller", list)
}

func TestUntrustedCallersDoNotEvictWhatEnginesNeed(t *testing.T) {
	up := quirky.New(t, quirky.Options{})
	up.Add(repo, "v1", image)
	s, name, folder := serve(t, up.URL(), "SIDEMIRROR_CACHE_MAX_SIZE=4MiB")
	s.Get(of(name, "blobs/"+layer.Digest.String()), nil).Whole(t, "the engine's layer", layer.Bytes)
	other := untrusted(t)
	for i := range 40 {
		filler := quirky.NewImage(false, fmt.Sprint("filler ", i), 200<<10)
		up.Add(repo, fmt.Sprint("f", i), filler)
		b := filler.Blobs[1]
		s.DoWith(other, "GET", of(name, "blobs/"+b.Digest.String()), nil).Whole(t, "an untrusted caller's layer", b.Bytes)
	}
	up.Forget()
	s.Get(of(name, "blobs/"+layer.Digest.String()), nil).Whole(t, "the engine's layer", layer.Bytes)
	if n := up.Count(quirky.Registry, "GET", "/blobs/"); n != 0 {
		t.Errorf("the engine's layer was evicted: it is fetched %d times again", n)
	}
	s.Eventually("what untrusted callers store is within their share", func() bool {
		stored, _ := size(t, folder)
		return stored < 1<<20
	})
}

func TestABlobWithoutLengthDoesNotFillTheDisk(t *testing.T) {
	const most = 4 << 20
	var folder string
	var peak atomic.Int64
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/blobs/") || r.Method == http.MethodHead {
			return
		}
		for range 64 {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
			stored, _ := size(t, folder)
			peak.Store(max(peak.Load(), stored))
		}
	}))
	defer upstream.Close()
	s, name, at := serve(t, upstream.URL, "SIDEMIRROR_CACHE_MAX_SIZE=4MiB")
	folder = at
	client := harness.Client(t)
	resp, err := client.Get(s.URL() + of(name, "blobs/"+digest.FromString("endless").String()))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if n := peak.Load(); n > most+1<<20 {
		t.Errorf("%d bytes were on disk, max_size is %d", n, most)
	}
}

func TestErrorsTellUntrustedCallersNothingOfTheUpstreams(t *testing.T) {
	away := harness.FreeAddress(t)
	s := harness.Start(t, harness.Options{Registries: []harness.Registry{
		{Name: "one.example", Upstreams: []string{"http://" + away + "/v2/internal"}},
		{Name: "two.example", Upstreams: []string{"http://" + away + "/v2/internal"}, Relay: true},
	}})
	paths := []string{
		"/v2/a/b/manifests/v1?ns=unknown.example", "/v2/nothing", "/v2/unknown.example/a/manifests/v1",
		"/v2/a/b/manifests/v1?ns=one.example", "/v2/one.example/a/b/blobs/" + layer.Digest.String(),
		"/v2/a/b/tags/list?ns=two.example", "/v2/auth?scope=repository:a/b:pull&ns=two.example",
	}
	other := untrusted(t)
	named := 0
	for _, p := range paths {
		if a := s.DoWith(other, "GET", p, nil); bytes.Contains(a.Body, []byte(away)) || bytes.Contains(a.Body, []byte("two.example\":")) {
			t.Errorf("%s tells an untrusted caller %s", p, a.Body)
		}
		if a := s.Get(p, nil); bytes.Contains(a.Body, []byte(away)) {
			named++
		}
	}
	if named < 4 {
		t.Errorf("only %d of %d errors name the upstream to a trusted caller", named, len(paths))
	}
}

// A registry that redirects an engine here would have content pulled with the logins of this
// host. A Go client says where it was sent from, unless it was by TLS.
func TestAnEngineThatAnotherRegistryRedirectsHereIsRefused(t *testing.T) {
	up := quirky.New(t, quirky.Options{})
	up.Add(repo, "v1", image)
	s, name, _ := serve(t, up.URL())
	evil := httptest.NewServer(http.RedirectHandler(s.URL()+of(name, "blobs/"+layer.Digest.String()), http.StatusTemporaryRedirect))
	defer evil.Close()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(evil.URL + "/v2/evil/image/blobs/" + layer.Digest.String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("status %d", resp.StatusCode)
	}
	if n := up.Count(quirky.Registry, "", repo); n != 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

// Some registries refuse lists, or a single image, to everyone without a login.
func TestARefusalOfOneThingKeepsNoOtherCallerFromTheRest(t *testing.T) {
	own := quirky.New(t, quirky.Options{
		Auth: quirky.Auth{Scheme: "Bearer"},
		Intercept: func(part quirky.Part, w http.ResponseWriter, r *http.Request) bool {
			refused := part == quirky.Registry && r.Header.Get("Authorization") != "" &&
				(strings.HasSuffix(r.URL.Path, "/tags/list") || strings.HasSuffix(r.URL.Path, "/manifests/blocked"))
			if refused {
				w.WriteHeader(http.StatusForbidden)
			}
			return refused
		},
	})
	own.Add(repo, "v1", image)
	s := harness.Start(t, harness.Options{Registries: []harness.Registry{{Name: own.Host(), Upstreams: []string{own.URL()}}}})
	other := untrusted(t)
	for _, what := range []string{"tags/list", "manifests/blocked"} {
		if a := s.DoWith(other, "GET", of(own.Host(), what), nil); a.Status/100 != 4 {
			t.Fatalf("%s: %d", what, a.Status)
		}
		s.Get(of(own.Host(), "manifests/v1"), nil).Whole(t, "the manifest after a refusal of "+what, image.Bytes)
		s.Get(of(own.Host(), "blobs/"+layer.Digest.String()), nil).Whole(t, "the layer after a refusal of "+what, layer.Bytes)
	}
}
