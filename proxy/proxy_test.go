package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/internal/logline"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/peer"
)

// rig is a proxy, served, in front of upstreams that a test writes.
type rig struct {
	*httptest.Server
	log    *bytes.Buffer
	client *http.Client
}

// accessLog writes access lines through a logger.
type accessLog struct{ log *logrus.Logger }

func (a accessLog) Write(_ time.Time, level logrus.Level, message string, fields []logline.Field) {
	data := logrus.Fields{}
	for _, f := range fields {
		data[f.Name] = f.Value()
	}
	a.log.WithFields(data).Log(level, message)
}

// newRig serves Docker Hub from the upstreams given.
// trusting returns the Trust of a host where nothing but containers is excluded.
func trusting(uid uint32) *peer.Trust { return peer.NewTrust([]uint32{uid}, []string{"*"}, nil) }

func newRig(t *testing.T, change func(*Config), upstreams ...http.HandlerFunc) *rig {
	t.Helper()
	hub := config.NewRegistry("docker.io")
	hub.Upstreams = nil
	for _, h := range upstreams {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		u, err := url.Parse(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		hub.Upstreams = append(hub.Upstreams, config.NewUpstream(u))
	}
	g := &rig{log: &bytes.Buffer{}}
	c := Config{Registries: []config.Registry{hub}, Default: "docker.io", Trust: trusting(uint32(os.Getuid())), Log: logrus.New()}
	c.Log.SetOutput(g.log)
	c.AccessLog = accessLog{c.Log}
	if change != nil {
		change(&c)
	}
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	g.Server = httptest.NewUnstartedServer(p)
	g.Config.ConnContext = peer.ConnContext
	g.Start()
	g.client = &http.Client{
		Transport:     &http.Transport{DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		g.client.CloseIdleConnections()
		g.Close()
		p.Close()
	})
	return g
}

type got struct {
	*http.Response
	body []byte
	err  error // of reading the body
}

func (g *rig) do(t *testing.T, method, path string, headers ...string) got {
	t.Helper()
	req, err := http.NewRequest(method, g.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	resp, err := g.client.Do(req)
	if err != nil {
		return got{&http.Response{Header: http.Header{}}, nil, err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return got{resp, body, err}
}

const aManifest = `{"schemaVersion":2,"config":{},"layers":[]}`

func manifestHandler(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	w.Header().Set("Docker-Content-Digest", digest.FromString(aManifest).String())
	_, _ = io.WriteString(w, aManifest)
}

func TestHeadOfAManifestIsCompleteWhateverTheUpstreamLeavesOut(t *testing.T) {
	t.Parallel()
	want := digest.FromString(aManifest).String()
	for name, h := range map[string]http.HandlerFunc{
		"nothing": manifestHandler,
		"digest":  func(w http.ResponseWriter, r *http.Request) { manifestHandler(noHeader{w, "Docker-Content-Digest"}, r) },
		"type":    func(w http.ResponseWriter, r *http.Request) { manifestHandler(noHeader{w, "Content-Type"}, r) },
		"malformed digest": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Docker-Content-Digest", "sha256:x")
			manifestHandler(noHeader{w, "Docker-Content-Digest"}, r)
		},
		"length": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.Header().Set("Transfer-Encoding", "chunked")
			}
			manifestHandler(w, r)
		},
		"HEAD itself": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			manifestHandler(w, r)
		},
	} {
		for _, reference := range []string{"v1", want} {
			t.Run(name+" "+reference[:2], func(t *testing.T) {
				a := newRig(t, nil, h).do(t, "HEAD", "/v2/library/a/manifests/"+reference)
				if a.StatusCode != 200 || a.Header.Get("Docker-Content-Digest") != want || a.ContentLength != int64(len(aManifest)) ||
					a.Header.Get("Content-Type") != "application/vnd.oci.image.manifest.v1+json" {
					t.Errorf("%d %v", a.StatusCode, a.Header)
				}
			})
		}
	}
}

// noHeader is a ResponseWriter on which one header cannot be set.
type noHeader struct {
	http.ResponseWriter
	name string
}

func (n noHeader) Write(b []byte) (int, error) {
	if n.name == "Content-Type" {
		n.Header()["Content-Type"] = nil
	} else if n.Header().Get(n.name) != "sha256:x" {
		n.Header().Del(n.name)
	}
	return n.ResponseWriter.Write(b)
}

func TestA304IsForWhoAsksForIt(t *testing.T) {
	t.Parallel()
	g := newRig(t, nil, manifestHandler)
	etag := `"` + digest.FromString(aManifest).String() + `"`
	for cond, want := range map[string]int{"": 200, `"other"`: 200, etag: 304} {
		if a := g.do(t, "GET", "/v2/library/a/manifests/v1", "If-None-Match", cond); a.StatusCode != want || a.Header.Get("ETag") != etag || (len(a.body) == 0) != (want == 304) {
			t.Errorf("If-None-Match %s: %d, %d bytes, ETag %s", cond, a.StatusCode, len(a.body), a.Header.Get("ETag"))
		}
	}
}

func TestManifestsThatAreRefused(t *testing.T) {
	t.Parallel()
	big := `{"schemaVersion":2,"config":{},"layers":[],"x":"` + strings.Repeat("a", oci.MaxManifest) + `"}`
	for name, h := range map[string]http.HandlerFunc{
		"too long":   func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, big) },
		"HTML":       func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "<html>sign in</html>") },
		"other JSON": func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, `{"errors":[]}`) },
		"deep JSON":  func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, strings.Repeat("[", 100000)) },
		"schema 1": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
			_, _ = io.WriteString(w, `{"schemaVersion":1,"fsLayers":[]}`)
		},
		"not its digest": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Docker-Content-Digest", fooDigest.String())
			_, _ = io.WriteString(w, aManifest)
		},
		"compressed as was not asked for": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			_, _ = io.WriteString(w, aManifest)
		},
		"cut": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, aManifest)
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newRig(t, nil, h).do(t, "GET", "/v2/library/a/manifests/v1")
			if a.StatusCode != http.StatusBadGateway || !strings.Contains(string(a.body), `"errors"`) {
				t.Errorf("%d %.200s", a.StatusCode, a.body)
			}
			// And the next upstream is asked.
			if a = newRig(t, nil, h, manifestHandler).do(t, "GET", "/v2/library/a/manifests/v1"); a.StatusCode != 200 || string(a.body) != aManifest {
				t.Errorf("with another upstream: %d %.200s", a.StatusCode, a.body)
			}
		})
	}
}

func TestInMirrorFormNoStatusGoesOutThatAnEngineDwellsOn(t *testing.T) {
	t.Parallel()
	for upstream, want := range map[int][2]int{ // mirror, prefix
		400: {502, 400}, 401: {401, 401}, 403: {403, 403}, 404: {404, 404}, 405: {502, 405}, 406: {502, 406}, 408: {502, 502},
		410: {502, 410}, 429: {502, 429}, 451: {502, 451}, 500: {502, 502}, 503: {502, 502}, 304: {502, 502}, 204: {502, 502},
	} {
		h := func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(upstream)
		}
		for i, path := range []string{"/v2/library/a/manifests/v1", "/v2/docker.io/library/a/manifests/v1"} {
			a := newRig(t, nil, h).do(t, "GET", path)
			if a.StatusCode != want[i] || a.Header.Get("Www-Authenticate") != "" {
				t.Errorf("upstream %d: %s is answered %d, want %d", upstream, path, a.StatusCode, want[i])
			}
			if retry := a.Header.Get("Retry-After"); (retry != "") != (a.StatusCode == 429) {
				t.Errorf("upstream %d: %s: Retry-After %q", upstream, path, retry)
			}
			if upstream == 429 && !strings.Contains(string(a.body), "TOOMANYREQUESTS") {
				t.Errorf("%s", a.body)
			}
		}
	}
}

func TestWebPagesAreRefused(t *testing.T) {
	t.Parallel()
	g := newRig(t, nil, manifestHandler)
	for _, h := range [][]string{{"Origin", "http://x"}, {"Origin", ""}, {"Referer", "http://x/"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Host", "evil.test"}} {
		for _, path := range []string{"/v2/", "/v2/library/a/manifests/v1", "/v2/unknown.test/x/manifests/v1", "/v2/auth"} {
			if a := g.do(t, "GET", path, h...); a.StatusCode != http.StatusForbidden || a.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%v %s: %d", h, path, a.StatusCode)
			}
		}
	}
	if a := g.do(t, "GET", "/v2/library/a/manifests/v1", "Sec-Fetch-Site", "none"); a.StatusCode != 200 {
		t.Errorf("a person who types the address: %d", a.StatusCode)
	}
}

func TestOwnNames(t *testing.T) {
	t.Parallel()
	g := newRig(t, func(c *Config) {
		c.OwnHosts = []string{"mirror.lan", "192.0.2.1"}
		c.Registries[0].Hosts = []string{"docker.lan"}
	}, manifestHandler)
	for host, want := range map[string]int{
		"localhost": 200, "LOCALHOST:305": 200, "127.0.0.1": 200, "127.8.8.8:1": 200, "[::1]:305": 200, "[::ffff:127.0.0.1]": 200,
		"mirror.lan:305": 200, "192.0.2.1:305": 200, "docker.lan": 200, "docker.lan.": 200,
		"evil.test": 404, "docker.lan.evil.test": 404, "192.0.2.2": 404, "localhost.evil.test": 404, "127.0.0.1.evil.test": 404,
	} {
		if a := g.do(t, "GET", "/v2/library/a/manifests/v1", "Host", host); a.StatusCode != want {
			t.Errorf("Host %s: %d, want %d", host, a.StatusCode, want)
		} else if want == 404 && !strings.Contains(string(a.body), `"routes":{"docker.lan":`) {
			t.Errorf("Host %s: %s", host, a.body)
		}
	}
}

func TestARequestThatComesBackIsEnded(t *testing.T) {
	t.Parallel()
	var g *rig
	var forwarded atomic.Int32
	g = newRig(t, nil, func(w http.ResponseWriter, r *http.Request) {
		forwarded.Add(1)
		req, _ := http.NewRequest(r.Method, g.URL+r.URL.Path, nil)
		req.Header = r.Header.Clone()
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
	})
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	a := g.do(t, "GET", "/v2/library/a/manifests/v1")
	if a.StatusCode != http.StatusBadGateway || forwarded.Load() > 2 {
		t.Errorf("%d after %d rounds", a.StatusCode, forwarded.Load())
	}
}

func TestTheWildcardServesTrustedEnginesAlone(t *testing.T) {
	t.Parallel()
	wild := func(uid uint32) func(*Config) {
		return func(c *Config) {
			c.Registries = append(c.Registries, config.NewRegistry(config.Wildcard))
			c.Trust = trusting(uid)
		}
	}
	path := "/v2/o/i/manifests/v1?ns=registry.invalid"
	if a := newRig(t, wild(uint32(os.Getuid())), manifestHandler).do(t, "GET", path); a.StatusCode != http.StatusBadGateway || !strings.Contains(string(a.body), "registry.invalid") {
		t.Errorf("trusted: %d %s", a.StatusCode, a.body)
	}
	if a := newRig(t, wild(4711), manifestHandler).do(t, "GET", path); a.StatusCode != http.StatusNotFound {
		t.Errorf("an untrusted caller: %d %s", a.StatusCode, a.body)
	}
	if a := newRig(t, wild(uint32(os.Getuid())), manifestHandler).do(t, "GET", "/v2/o/i/manifests/v1?ns=127.0.0.1:1"); a.StatusCode != http.StatusNotFound {
		t.Errorf("loopback: %d %s", a.StatusCode, a.body)
	}
}

func TestALoginMakesARegistryKnownToTrustedEngines(t *testing.T) {
	t.Parallel()
	var name atomic.Value
	name.Store("")
	rigFor := func(uid uint32) *rig {
		return newRig(t, func(c *Config) {
			c.Trust = trusting(uid)
			c.LoggedIn = func(registry string) bool { return registry == name.Load() }
		}, manifestHandler)
	}
	trusted, untrusted := rigFor(uint32(os.Getuid())), rigFor(4711)
	for _, step := range []struct {
		login string
		want  int // for trusted callers
	}{{"", http.StatusNotFound}, {"registry.invalid", http.StatusBadGateway}, {"other.invalid", http.StatusNotFound}} {
		name.Store(step.login)
		for _, path := range []string{"/v2/o/i/manifests/v1?ns=registry.invalid", "/v2/registry.invalid/o/i/manifests/v1"} {
			if a := trusted.do(t, "GET", path); a.StatusCode != step.want {
				t.Errorf("login %q: %s: %d %s", step.login, path, a.StatusCode, a.body)
			}
			if a := untrusted.do(t, "GET", path); a.StatusCode != http.StatusNotFound {
				t.Errorf("login %q: %s of an untrusted caller: %d %s", step.login, path, a.StatusCode, a.body)
			}
		}
	}
}

func TestOnlySomeRegistriesWithoutATableAreRemembered(t *testing.T) {
	t.Parallel()
	r, err := newRoutes(Config{Registries: []config.Registry{config.NewRegistry(config.Wildcard)}, Log: logrus.New()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	first := r.lookup("r0.test")
	for i := range 3 * maxUnnamed {
		r.lookup(fmt.Sprintf("r%d.test", i))
		if r.lookup("r0.test") != first {
			t.Fatalf("one in use is forgotten after %d others", i)
		}
	}
	if len(r.unnamed) != maxUnnamed {
		t.Errorf("%d are remembered", len(r.unnamed))
	}
}

// source answers as credentials do in a test.
type source func() (credential.Credential, error)

func (s source) Lookup(context.Context, string, string) (credential.Credential, error) { return s() }

func TestARefusalSaysThatACredentialCannotBeRead(t *testing.T) {
	t.Parallel()
	unread := source(func() (credential.Credential, error) { return credential.Credential{}, errors.New("half-written") })
	for status, explained := range map[int]bool{
		http.StatusUnauthorized: true, http.StatusForbidden: true, http.StatusNotFound: true,
		http.StatusTooManyRequests: false, http.StatusInternalServerError: false,
	} {
		var asked atomic.Int32
		g := newRig(t, func(c *Config) { c.Credentials = unread }, func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			w.WriteHeader(status)
		})
		a := g.do(t, "GET", "/v2/library/a/manifests/v1")
		if asked.Load() == 0 || strings.Contains(string(a.body), "cannot read one") != explained {
			t.Errorf("upstream said %d and was asked %d times: %d %s", status, asked.Load(), a.StatusCode, a.body)
		}
		if strings.Contains(g.log.String(), "half-written") != explained {
			t.Errorf("upstream said %d, and the log: %s", status, g.log)
		}
	}
}

func TestABodyOnGetIsRefusedAndTheConnectionClosed(t *testing.T) {
	t.Parallel()
	g := newRig(t, nil, manifestHandler)
	conn, err := net.Dial("tcp", g.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
		t.Errorf("%v %.200s", err, answer)
	}
}

func TestPagingLinksLeadHere(t *testing.T) {
	t.Parallel()
	for link, want := range map[string]string{
		`</v2/library/a/tags/list?n=2&last=b>; rel="next"`:                     `?last=b&n=2>; rel="next"`,
		`<http://upstream.test/v2/x/tags/list?last=b&n=2&ns=evil>; rel="next"`: `?last=b&n=2>; rel="next"`,
		`<tags/list?next_page=opaque%3D>;rel="next"`:                           `?next_page=opaque%3D>;rel="next"`,
		`malformed`: "",
	} {
		h := func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", link)
			_, _ = io.WriteString(w, `{"name":"library/a","tags":[]}`)
		}
		for _, local := range []string{"/v2/library/a/tags/list", "/v2/docker.io/library/a/tags/list"} {
			got := newRig(t, nil, h).do(t, "GET", local+"?n=2").Header.Get("Link")
			if want == "" && got == "" {
				continue
			}
			if got != "<"+local+want {
				t.Errorf("%s becomes %s, want <%s%s", link, got, local, want)
			}
		}
		got := newRig(t, nil, h).do(t, "GET", "/v2/library/a/tags/list?ns=docker.io").Header.Get("Link")
		if want != "" && !strings.Contains(got, "ns=docker.io") {
			t.Errorf("%s becomes %s without its registry", link, got)
		}
	}
}
