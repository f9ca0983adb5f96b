package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func get(path string) Request {
	return Request{Method: http.MethodGet, Path: path, Header: http.Header{}}
}

func anonymous(path string) Request {
	r := get(path)
	r.Access = &auth.Access{}
	return r
}

func TestARedirectGetsNoneOfTheRequestsSecrets(t *testing.T) {
	var seen http.Header
	elsewhere := serve(t, func(_ http.ResponseWriter, r *http.Request) { seen = r.Header })
	for _, status := range []int{301, 302, 303, 307, 308} {
		registry := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "" {
				t.Error("the registry itself was asked without")
			}
			http.Redirect(w, r, elsewhere.URL+"/signed?X-Amz-Signature=x", status)
		})
		u := newUpstream(t, Config{URL: mustURL(registry.URL), UserAgent: "ua"})
		r := get("/v2/o/i/blobs/x")
		r.Authorization = credential.NewSecret("Bearer canary")
		r.Header = http.Header{"Range": {"bytes=1-"}, "If-Range": {`"x"`}, "Accept": {"a/b"}, "Cookie": {"c"}, "X-Custom": {"y"}}
		resp, err := u.Do(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		for name, want := range map[string]string{"Authorization": "", "Cookie": "", "X-Custom": "", "Range": "bytes=1-", "If-Range": `"x"`, "Accept": "a/b", "User-Agent": "ua"} {
			if got := seen.Get(name); got != want {
				t.Errorf("%d: %s is %q, want %q", status, name, got, want)
			}
		}
	}
}

func TestRedirectsThatAreRefused(t *testing.T) {
	for name, location := range map[string]string{
		"loop": "", "no host": "https:///x", "login in it": "http://u:p@127.0.0.1/", "scheme": "ftp://127.0.0.1/", "metadata": "http://169.254.169.254/latest/meta-data",
		"metadata in IPv6": "http://[::ffff:a9fe:a9fe]/", "malformed": "http://%zz/", "shorthand": "http://127.1/",
	} {
		t.Run(name, func(t *testing.T) {
			var hits atomic.Int32
			registry := serve(t, func(w http.ResponseWriter, r *http.Request) {
				hits.Add(1)
				if location == "" {
					w.Header().Set("Location", r.URL.Path)
				} else {
					w.Header().Set("Location", location)
				}
				w.WriteHeader(http.StatusFound)
			})
			u := newUpstream(t, Config{URL: mustURL(registry.URL)})
			_, err := u.Do(context.Background(), anonymous("/v2/o/i/blobs/x"))
			if !errors.Is(err, &oci.Error{Code: oci.Untrusted}) || hits.Load() > maxRedirects+1 {
				t.Errorf("%v after %d requests", err, hits.Load())
			}
		})
	}
}

func TestATLSUpstreamMustNotRedirectToPlainHTTP(t *testing.T) {
	plain := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("asked without TLS") })
	registry := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain.URL, http.StatusTemporaryRedirect)
	}))
	defer registry.Close()
	u := newUpstream(t, Config{URL: mustURL(registry.URL), Registry: config.Registry{CA: writeCA(t, registry)}})
	if _, err := u.Do(context.Background(), anonymous("/v2/")); err == nil || !strings.Contains(err.Error(), "without TLS") {
		t.Errorf("%v", err)
	}
}

func writeCA(t *testing.T, s *httptest.Server) string {
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pemOf(s.Certificate().Raw), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestA401OnTheWayStartsNothing(t *testing.T) {
	var tokens atomic.Int32
	var realm string
	elsewhere := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/token") {
			tokens.Add(1)
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	registry := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	realm = elsewhere.URL + "/token"
	u := newUpstream(t, Config{URL: mustURL(registry.URL), Registry: config.Registry{Realms: []string{elsewhere.URL}}})
	r := anonymous("/v2/o/i/blobs/x")
	r.Access.Credential = credential.Credential{Username: "u", Password: credential.NewSecret("p"), Generation: "g"}
	resp, err := u.Do(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized || tokens.Load() != 0 {
		t.Errorf("%d, %d tokens", resp.StatusCode, tokens.Load())
	}
}

func TestARefusedSignedHeadIsAskedByGet(t *testing.T) {
	for name, size := range map[string]string{"some": "12345", "nothing": "0"} {
		t.Run(name, func(t *testing.T) {
			store := serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodHead:
					w.WriteHeader(http.StatusForbidden)
				case r.Header.Get("Range") != "bytes=0-0":
					t.Errorf("asked for %q", r.Header.Get("Range"))
				case size == "0":
					w.Header().Set("Content-Range", "bytes */0")
					w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				default:
					w.Header().Set("Content-Range", "bytes 0-0/"+size)
					w.WriteHeader(http.StatusPartialContent)
					_, _ = w.Write([]byte("x"))
				}
			})
			registry := serve(t, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, store.URL, http.StatusTemporaryRedirect)
			})
			u := newUpstream(t, Config{URL: mustURL(registry.URL)})
			r := anonymous("/v2/o/i/blobs/x")
			r.Method = http.MethodHead
			resp, err := u.Do(context.Background(), r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if want := map[string]int64{"0": 0, "12345": 12345}[size]; resp.StatusCode != 200 || resp.ContentLength != want {
				t.Errorf("%d, length %d", resp.StatusCode, resp.ContentLength)
			}
		})
	}
}

func TestA304IsNotPassedOn(t *testing.T) {
	registry := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) })
	u := newUpstream(t, Config{URL: mustURL(registry.URL)})
	if _, err := u.Do(context.Background(), anonymous("/v2/")); err == nil {
		t.Error("passed on")
	}
}

func TestAfterA429NothingIsAskedUntilRetryAfter(t *testing.T) {
	var asked atomic.Int32
	registry := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Retry-After", "600")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	u := newUpstream(t, Config{URL: mustURL(registry.URL)})
	for range 3 {
		_, err := u.Do(context.Background(), anonymous("/v2/"))
		var e *oci.Error
		if !errors.As(err, &e) || e.Code != oci.TooManyRequests || e.RetryAfter < 590*time.Second {
			t.Fatalf("%v", err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	other := anonymous("/v2/")
	other.Access.Credential = credential.Credential{Username: "u", Password: credential.NewSecret("p"), Generation: "other"}
	_, _ = u.Do(context.Background(), other)
	if n := asked.Load(); n != 2 {
		t.Errorf("another credential is held back too: asked %d times", n)
	}
	// A client that makes up tokens does not end this hold.
	for i := range 1000 {
		client := get("/v2/")
		client.Authorization = credential.NewSecret(fmt.Sprint("Bearer ", i))
		_, _ = u.Do(context.Background(), client)
	}
	if left := u.holds.left(anonymous("/v2/")); left < 590*time.Second || len(u.holds.until) > maxHolds {
		t.Errorf("held for %v of 10 min, %d holds", left, len(u.holds.until))
	}
}

func TestThePoolGoesOnButForA401(t *testing.T) {
	status := func(code int) *Upstream {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
		return newUpstream(t, Config{URL: mustURL(s.URL)})
	}
	for _, tt := range []struct {
		name  string
		codes []int
		want  int // 0: an error
	}{
		{"404 goes on", []int{404, 200}, 200},
		{"500 goes on", []int{500, 200}, 200},
		{"429 goes on", []int{429, 200}, 200},
		{"401 does not", []int{401, 200}, 401},
		{"403 does not", []int{403, 200}, 403},
		{"all say 404", []int{404, 404}, 404},
		{"one that failed might have had it", []int{404, 502}, 0},
		{"the other way round too", []int{502, 404}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var pool Pool
			for _, code := range tt.codes {
				pool = append(pool, status(code))
			}
			resp, _, err := pool.Do(context.Background(), anonymous("/v2/"), nil)
			if err == nil {
				resp.Body.Close()
			}
			if (err != nil) != (tt.want == 0) || err == nil && resp.StatusCode != tt.want {
				t.Errorf("%v, %v", resp, err)
			}
		})
	}
}

func TestAnUntrustedCertificateIsNamed(t *testing.T) {
	registry := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	registry.Config.ErrorLog = quiet()
	registry.StartTLS()
	defer registry.Close()
	u := newUpstream(t, Config{URL: mustURL(registry.URL)})
	if _, err := u.Do(context.Background(), anonymous("/v2/")); err == nil || !strings.Contains(err.Error(), "certificate is not trusted") {
		t.Errorf("%v", err)
	}
}

func TestTheClientCertificateIsShownToTheUpstreamAlone(t *testing.T) {
	shown := make(chan int, 2)
	count := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { shown <- len(r.TLS.PeerCertificates) })
	store := httptest.NewUnstartedServer(count)
	store.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	store.StartTLS()
	defer store.Close()
	registry := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count(w, r)
		http.Redirect(w, r, store.URL, http.StatusTemporaryRedirect)
	}))
	registry.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	registry.StartTLS()
	defer registry.Close()

	cert, key := writePair(t, registry)
	u := newUpstream(t, Config{URL: mustURL(registry.URL), Registry: config.Registry{CA: writeCA(t, registry), Cert: cert, Key: key}})
	trusted := anonymous("/v2/")
	trusted.Certificate = true
	resp, err := u.Do(context.Background(), trusted)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if registry, store := <-shown, <-shown; registry != 1 || store != 0 {
		t.Errorf("shown to the registry %d times, to the store %d times", registry, store)
	}
}

func TestTheClientCertificateIsShownForThoseCallersOnlyThatMayUseIt(t *testing.T) {
	registry := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	registry.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	registry.StartTLS()
	defer registry.Close()
	cert, key := writePair(t, registry)
	u := newUpstream(t, Config{URL: mustURL(registry.URL), Registry: config.Registry{CA: writeCA(t, registry), Cert: cert, Key: key}})
	if u.Certificate() == "" {
		t.Error("the certificate has no name")
	}
	for range 2 { // connections and what was learned on them are not shared either
		for certificate, want := range map[bool]int{true: 200, false: 403} {
			r := anonymous("/v2/")
			r.Certificate = certificate
			resp, err := u.Do(context.Background(), r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("certificate %v: %d, want %d", certificate, resp.StatusCode, want)
			}
		}
	}
}

// A server that insists on a certificate ends the handshake of a caller without one. That must
// not count against it.
func TestAnUpstreamThatInsistsOnACertificateStaysWithinReach(t *testing.T) {
	registry := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	registry.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	registry.Config.ErrorLog = log.New(io.Discard, "", 0)
	registry.StartTLS()
	defer registry.Close()
	cert, key := writePair(t, registry)
	changes := 0
	u := newUpstream(t, Config{
		URL: mustURL(registry.URL), Registry: config.Registry{CA: writeCA(t, registry), Cert: cert, Key: key},
		Changed: func(error) { changes++ },
	})
	pool := Pool{u}
	for range 3 {
		if _, _, err := pool.Do(context.Background(), anonymous("/v2/"), nil); err == nil {
			t.Error("a caller without the certificate is let in")
		}
	}
	trusted := anonymous("/v2/")
	trusted.Certificate = true
	resp, _, err := pool.Do(context.Background(), trusted, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if changes != 0 {
		t.Errorf("the upstream was out of reach or back %d times", changes)
	}
}

func TestCertificatesThatCannotBeReadFailAtTheStart(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]config.Registry{
		"no ca": {CA: "/nonexistent.pem"}, "ca without certificate": {CA: empty}, "ca a folder": {CA: "/"},
		"no key": {Cert: empty, Key: "/nonexistent.pem"}, "no pair": {Cert: empty, Key: empty},
	} {
		if u, err := New(Config{URL: mustURL("https://r.example"), Registry: c}); err == nil {
			u.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

func TestLogin(t *testing.T) {
	good := credential.Credential{Username: "u", Password: credential.NewSecret("right"), Generation: "g1"}
	bad := credential.Credential{Username: "u", Password: credential.NewSecret("wrong"), Generation: "g2"}
	for name, open := range map[string]bool{"closed": false, "open to read": true} {
		t.Run(name, func(t *testing.T) {
			registry := serve(t, func(w http.ResponseWriter, r *http.Request) {
				_, p, ok := r.BasicAuth()
				if p == "right" || open && !ok {
					return
				}
				w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
				w.WriteHeader(http.StatusUnauthorized)
			})
			u := newUpstream(t, Config{URL: mustURL(registry.URL)})
			if err := u.Login(context.Background(), good); err != nil {
				t.Errorf("good: %v", err)
			}
			if err := u.Login(context.Background(), bad); !errors.Is(err, &oci.Error{Code: oci.Unauthorized}) {
				t.Errorf("bad: %v", err)
			}
		})
	}
}

func TestAPathBeforeV2IsKept(t *testing.T) {
	var path string
	registry := serve(t, func(_ http.ResponseWriter, r *http.Request) { path = r.URL.Path })
	u := newUpstream(t, Config{URL: mustURL(registry.URL + "/proxy/hub/")})
	resp, err := u.Do(context.Background(), anonymous("/v2/library/alpine/tags/list"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if path != "/proxy/hub/v2/library/alpine/tags/list" {
		t.Errorf("asked for %s", path)
	}
}
