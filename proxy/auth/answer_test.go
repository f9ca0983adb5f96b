package auth

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/proxy/credential"
)

func TestATokenPastHalfItsLifeIsRefreshedOn403(t *testing.T) { // ECR Public
	for _, status := range []int{http.StatusForbidden, http.StatusBadRequest} {
		g := newRegistry(t)
		g.mustGet(t, "o/i", login("a"))
		key := tokenKey{"test:a", "repository:o/i:pull"}
		old := g.transport.tokens.stored[key]
		stale := "Bearer " + old.value.Reveal()
		g.content = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Authorization") == stale {
				w.WriteHeader(status)
				return true
			}
			return false
		}
		if got, err := g.get("o/i", login("a")); err != nil || got != status {
			t.Errorf("young token: %d, %v; a refusal that is meant must come through", got, err)
		}
		old.fetched = old.fetched.Add(-time.Hour)
		g.mustGet(t, "o/i", login("a"))
	}
}

// refuseFirst makes g answer 401 to the first n tokens, each time it sees them.
func (g *registry) refuseFirst(n int) {
	seen := map[string]int{}
	g.content = func(w http.ResponseWriter, r *http.Request) bool {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			return false
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if seen[token] == 0 {
			seen[token] = len(seen) + 1
		}
		if seen[token] > n {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+g.URL+`/token",service="s"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}

func TestAFreshTokenThatIsRefusedIsReplacedOnce(t *testing.T) {
	g := newRegistry(t)
	g.refuseFirst(1)
	g.mustGet(t, "o/i", login("a"))
	if n := g.fetches.Load(); n != 2 {
		t.Errorf("%d tokens fetched, want 2", n)
	}
}

func TestARefusalOfEveryTokenIsPassedOnAndNotAnsweredAtEachRequest(t *testing.T) {
	g := newRegistry(t)
	g.refuseFirst(1000)
	for range 20 {
		if status, err := g.get("o/i", login("a")); err != nil || status != http.StatusUnauthorized {
			t.Fatalf("%d, %v", status, err)
		}
	}
	if n := g.fetches.Load(); n != 2 {
		t.Errorf("%d tokens fetched for 20 requests, want 2", n)
	}
}

func TestAReplacementThatWasAcceptedIsReplacedWhenItIsRevoked(t *testing.T) {
	g := newRegistry(t)
	for range 3 {
		g.mustGet(t, "o/i", login("a"))
		g.revoke()
	}
	g.mustGet(t, "o/i", login("a"))
	if n := g.fetches.Load(); n != 4 {
		t.Errorf("%d tokens fetched, want 4", n)
	}
}

// RFC 6750, 3.1: the token is good, and its scope is not enough.
func TestAFreshTokenWithoutTheScopeIsNotReplaced(t *testing.T) {
	g := newRegistry(t)
	g.content = func(w http.ResponseWriter, r *http.Request) bool {
		challenge := `Bearer realm="` + g.URL + `/token",service="s"`
		if r.Header.Get("Authorization") != "" {
			challenge += `,error="insufficient_scope"`
		}
		w.Header().Set("WWW-Authenticate", challenge)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	if status, err := g.get("o/i", credential.Credential{}); err != nil || status != http.StatusUnauthorized {
		t.Errorf("%d, %v", status, err)
	}
	if n := g.fetches.Load(); n != 1 {
		t.Errorf("%d tokens fetched, want 1", n)
	}
}

// hide makes g answer status without a challenge, except at /v2/, to a request without
// a valid token.
func (g *registry) hide(status int, base func(w http.ResponseWriter) bool) (asked *atomic.Int32) {
	asked = new(atomic.Int32)
	g.content = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v2/" {
			asked.Add(1)
			return base != nil && base(w)
		}
		g.mu.Lock()
		valid := g.valid[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		g.mu.Unlock()
		if !valid {
			w.WriteHeader(status)
		}
		return true
	}
	return asked
}

func TestAPrivateRepositoryThatIsHiddenWithoutAChallengeIsFoundByTheOneOfV2(t *testing.T) {
	for _, status := range []int{http.StatusNotFound, http.StatusForbidden, http.StatusUnauthorized} {
		g := newRegistry(t)
		asked := g.hide(status, nil)
		var wait sync.WaitGroup
		for range 20 {
			wait.Go(func() {
				if got, err := g.get("o/i", login("a")); err != nil || got != http.StatusOK {
					t.Errorf("hidden by %d: %d, %v", status, got, err)
				}
			})
		}
		wait.Wait()
		if asked.Load() != 1 || g.fetches.Load() != 1 {
			t.Errorf("hidden by %d: /v2/ asked %d times, %d tokens fetched; want 1 of each", status, asked.Load(), g.fetches.Load())
		}
	}
}

func TestV2IsNotAskedForAChallengeWithoutALoginNorAgain(t *testing.T) {
	g := newRegistry(t)
	asked := g.hide(http.StatusNotFound, func(http.ResponseWriter) bool { return true }) // open to everybody
	for range 5 {
		if got, err := g.get("o/i", credential.Credential{}); err != nil || got != http.StatusNotFound {
			t.Errorf("%d, %v", got, err)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("/v2/ asked %d times for an anonymous caller", n)
	}
	for range 5 {
		if got, err := g.get("o/i", login("a")); err != nil || got != http.StatusNotFound {
			t.Errorf("%d, %v", got, err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("/v2/ asked %d times, want 1", n)
	}
}

func TestATokenWithStatus203IsAToken(t *testing.T) {
	g := newRegistry(t)
	g.token = func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNonAuthoritativeInfo)
		g.issue(w, 300)
	}
	g.mustGet(t, "o/i", login("a"))
}

// identity is a credential whose token is asked for by POST.
var identity = credential.Credential{Username: "u", IdentityToken: credential.NewSecret("identity"), Generation: "test:i"}

func TestATokenServersRedirectIsFollowedWithinItsOrigin(t *testing.T) {
	for _, cred := range []credential.Credential{login("a"), identity, {}} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			g := newRegistry(t)
			form := ""
			g.Config.Handler.(*http.ServeMux).HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) {
				user, _, _ := r.BasicAuth()
				if form = r.PostFormValue("refresh_token"); form == "" && user != cred.Username {
					t.Errorf("%d: asked as %q", status, user)
				}
				g.issue(w, 300)
			})
			g.token = func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "/elsewhere?"+r.URL.RawQuery, status)
			}
			got, err := g.get("o/i", cred)
			want := ""
			if !cred.IdentityToken.IsZero() && status >= 307 { // 301, 302 and 303 make a GET of a POST
				want = "identity"
			}
			if form != want {
				t.Errorf("%d: the form that followed is %q, want %q", status, form, want)
			}
			if lost := !cred.IdentityToken.IsZero() && want == ""; !lost && (err != nil || got != http.StatusOK) {
				t.Errorf("%d: %d, %v", status, got, err)
			}
		}
	}
}

func TestATokenServersRedirectToAnotherOriginIsNotFollowed(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		g, other := newRegistry(t), newRegistry(t)
		var elsewhere atomic.Int32
		g.Config.Handler.(*http.ServeMux).HandleFunc("/elsewhere", func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) })
		for _, to := range []string{
			other.URL + "/token",
			strings.Replace(g.URL, "127.0.0.1", "localhost", 1) + "/elsewhere", // another name is another host
			strings.Replace(g.URL, "://", "://u:p@", 1) + "/elsewhere",
		} {
			g.token = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, status) }
			for _, cred := range []credential.Credential{login("a"), identity, {}} {
				if _, err := g.get("o/i", cred); err == nil || !strings.Contains(err.Error(), "not followed") {
					t.Errorf("%d to %s: %v", status, to, err)
				}
			}
			if other.fetches.Load() != 0 || elsewhere.Load() != 0 {
				t.Errorf("%d to %s: followed", status, to)
			}
		}
	}
}

func TestATokenServersRedirectsEnd(t *testing.T) {
	g := newRegistry(t)
	g.token = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusFound) }
	if _, err := g.get("o/i", login("a")); err == nil {
		t.Error("no error")
	}
	if n := g.fetches.Load(); n != maxRealmRedirects+1 {
		t.Errorf("asked %d times", n)
	}
}
