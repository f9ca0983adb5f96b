package proxy

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/config"
)

// loginWanted is an upstream that wants a login for everything. It counts its requests, and those that
// came with an Authorization.
type loginWanted struct{ all, authorized atomic.Int32 }

func (u *loginWanted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.all.Add(1)
	if r.Header.Get("Authorization") != "" {
		u.authorized.Add(1)
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
	w.WriteHeader(http.StatusUnauthorized)
}

// modes serves docker.io and reg.test, each with a client_auth of its own.
func modes(t *testing.T, hub, other string) (*rig, *loginWanted) {
	t.Helper()
	u := &loginWanted{}
	g := newRig(t, func(c *Config) {
		reg := config.NewRegistry("reg.test")
		reg.Upstreams, reg.ClientAuth = c.Registries[0].Upstreams, other
		c.Registries[0].ClientAuth = hub
		c.Registries = append(c.Registries, reg)
	}, u.ServeHTTP)
	return g, u
}

func ownTokenOf(t *testing.T, body []byte) string {
	t.Helper()
	var answer struct{ Token string }
	if err := json.Unmarshal(body, &answer); err != nil || !strings.HasPrefix(answer.Token, "sidemirror.") {
		t.Fatalf("no token of sidemirror's own: %s", body)
	}
	return "Bearer " + answer.Token
}

// Which registries this host has logins for is the administrator's business.
func TestAnUntrustedCallerCannotTellForWhichRegistriesThereAreLogins(t *testing.T) {
	t.Parallel()
	g := newRig(t, func(c *Config) {
		c.Trust = trusting(uint32(os.Getuid()) + 1)
		c.LoggedIn = func(registry string) bool { return registry == "private.example" }
	}, manifestHandler)
	for _, path := range []string{
		"/v2/NAME/a/manifests/v1", "/v2/a/manifests/v1?ns=NAME", "/v2/?ns=NAME", "/v2/auth?ns=NAME", "/v2/auth?scope=repository:NAME/a:pull",
	} {
		about := func(registry string) string {
			got := g.do(t, http.MethodGet, strings.ReplaceAll(path, "NAME", registry))
			said := fmt.Sprint(got.StatusCode, got.Header["Oci-Namespace"], string(got.body))
			return strings.ReplaceAll(said, registry, "NAME")
		}
		if known, unknown := about("private.example"), about("another.example"); known != unknown {
			t.Errorf("%s: of a registry with a login it gets %s, of another one %s", path, known, unknown)
		}
	}
}

func TestTheBaseWithoutARegistryDependsOnNoRegistryAndAsksNone(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		hub, other string
		challenge  bool
	}{
		{"daemon", "daemon", false},
		{"daemon", "relay", true}, {"relay", "daemon", true}, {"relay", "relay", true},
		{"daemon", "auto", true}, {"auto", "daemon", true}, {"auto", "auto", true},
	} {
		g, u := modes(t, x.hub, x.other)
		want, challenge := 200, ""
		if x.challenge {
			want, challenge = 401, `Bearer realm="`+g.URL+`/v2/auth",service="sidemirror"`
		}
		a := g.do(t, "GET", "/v2/")
		if a.StatusCode != want || a.Header.Get("WWW-Authenticate") != challenge {
			t.Errorf("%+v: %d %q", x, a.StatusCode, a.Header.Get("WWW-Authenticate"))
		}
		// As "docker login" for sidemirror's address does.
		login := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:canary"))
		token := ownTokenOf(t, g.do(t, "GET", "/v2/auth?service=sidemirror&account=me", "Authorization", login).body)
		if a := g.do(t, "GET", "/v2/", "Authorization", token); a.StatusCode != 200 {
			t.Errorf("%+v: with a token: %d", x, a.StatusCode)
		}
		for _, foreign := range []string{login, "Bearer of-another-registry", "Bearer sidemirror.x", token[:len(token)-4]} {
			if a := g.do(t, "GET", "/v2/", "Authorization", foreign); a.StatusCode != want {
				t.Errorf("%+v: with %.24s: %d", x, foreign, a.StatusCode)
			}
		}
		if u.all.Load() != 0 {
			t.Errorf("%+v: the upstream was asked %d times", x, u.all.Load())
		}
	}
}

// Over a network that others can read, "auto" asks for no login and passes none on.
func TestAClientIsAskedForItsLoginOverLoopbackOrTLSOnly(t *testing.T) {
	t.Parallel()
	g, u := modes(t, "auto", "auto")
	for i, x := range []struct {
		from string
		tls  *tls.ConnectionState
		asks bool
	}{
		{"127.0.0.1:9", nil, true}, {"[::1]:9", nil, true}, {"[::ffff:127.0.0.1]:9", nil, true},
		{"192.0.2.7:9", nil, false}, {"10.0.0.1:9", nil, false}, {"[fe80::1]:9", nil, false}, {"@", nil, false}, {"", nil, false},
		{"192.0.2.7:9", &tls.ConnectionState{}, true},
	} {
		do := func(path, authorization string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.URL.Host, r.URL.Scheme, r.Host, r.RemoteAddr, r.TLS = "", "", "localhost", x.from, x.tls
			if authorization != "" {
				r.Header.Set("Authorization", authorization)
			}
			w := httptest.NewRecorder()
			g.Config.Handler.ServeHTTP(w, r)
			return w
		}
		for _, path := range []string{"/v2/", "/v2/?ns=reg.test", "/v2/a/b/manifests/v1?ns=reg.test", "/v2/reg.test/a/b/manifests/v1"} {
			w := do(path, "")
			if asks := w.Header().Get("WWW-Authenticate") != ""; asks != x.asks {
				t.Errorf("%+v: %s: %d, %q", x, path, w.Code, w.Header().Get("WWW-Authenticate"))
			} else if asks && x.tls != nil && strings.Contains(w.Header().Get("WWW-Authenticate"), "http://") {
				t.Errorf("%+v: %s leads to %q", x, path, w.Header().Get("WWW-Authenticate"))
			}
		}
		// Each has a login of its own: one that was refused is not sent again.
		login := "Basic " + base64.StdEncoding.EncodeToString([]byte{'a' + byte(i), ':', 'x'})
		before := u.authorized.Load()
		do("/v2/auth?ns=reg.test&scope=repository:a/b:pull", login)
		do("/v2/a/b/manifests/v1?ns=reg.test", login)
		if sent := u.authorized.Load() > before; sent != x.asks {
			t.Errorf("%+v: the login was sent to the registry: %v", x, sent)
		}
	}
}

func TestATokenRequestForARegistryOfTheDaemonsLoginAsksNoUpstream(t *testing.T) {
	t.Parallel()
	g, u := modes(t, "relay", "daemon")
	login := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:canary"))
	for _, path := range []string{
		"/v2/auth?ns=reg.test&scope=repository:a/b:pull", "/v2/auth?scope=repository:reg.test/a/b:pull",
		"/v2/auth?ns=reg.test", "/v2/auth?scope=repository:reg.test/a/b:pull&scope=repository:reg.test/c/d:pull",
	} {
		for _, authorization := range []string{"", login} {
			a := g.do(t, "GET", path, "Authorization", authorization)
			if a.StatusCode != 200 {
				t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
				continue
			}
			token := ownTokenOf(t, a.body)
			g.do(t, "GET", "/v2/a/b/manifests/v1?ns=reg.test", "Authorization", token)
		}
	}
	if u.authorized.Load() != 0 {
		t.Errorf("the client's login or a token of sidemirror's own was sent upstream %d times", u.authorized.Load())
	}
	if a := g.do(t, "GET", "/v2/auth?scope=repository:reg.test/a:pull&scope=repository:docker.io/b:pull"); a.StatusCode != 400 {
		t.Errorf("scopes of two registries: %d", a.StatusCode)
	}
	if a := g.do(t, "GET", "/v2/auth?scope=repository:unknown.test/a:pull"); a.StatusCode != 404 {
		t.Errorf("a registry that is not served: %d", a.StatusCode)
	}
}

// A registry's 401 that is remembered ends, also for a client that asks all the time.
func TestARefusalIsRememberedForItsCallerAndEnds(t *testing.T) {
	t.Parallel()
	g, u := modes(t, "auto", "relay")
	for range 5 {
		if a := g.do(t, "GET", "/v2/a/b/manifests/v1?ns=docker.io"); a.StatusCode != 401 || a.Header.Get("WWW-Authenticate") == "" {
			t.Fatalf("%d %q", a.StatusCode, a.Header.Get("WWW-Authenticate"))
		}
	}
	if n := u.all.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times, want once", n)
	}
	g.do(t, "GET", "/v2/a/c/manifests/v1?ns=docker.io")
	g.do(t, "GET", "/v2/a/b/manifests/v1?ns=docker.io", "Authorization", "Basic eDp5")
	if n := u.all.Load(); n != 3 {
		t.Errorf("another repository or caller was refused from memory: %d requests", n)
	}
	f := g.Config.Handler.(*Proxy).refusals
	f.mu.Lock()
	for key, known := range f.stored {
		known.until = known.until.Add(-refusalLife)
		f.stored[key] = known
	}
	f.mu.Unlock()
	g.do(t, "GET", "/v2/a/b/manifests/v1?ns=docker.io")
	if n := u.all.Load(); n != 4 {
		t.Errorf("a refusal is remembered for ever: %d requests", n)
	}
}
