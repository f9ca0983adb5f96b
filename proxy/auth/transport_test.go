package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// registry is a registry and token server in one. Tests replace its parts.
type registry struct {
	*httptest.Server
	transport *Transport

	mu      sync.Mutex
	valid   map[string]bool // tokens that are accepted
	content func(w http.ResponseWriter, r *http.Request) bool
	token   func(w http.ResponseWriter, r *http.Request)

	fetches, contents atomic.Int32
}

func newRegistry(t *testing.T) *registry {
	g := &registry{valid: map[string]bool{}}
	g.token = func(w http.ResponseWriter, r *http.Request) { g.issue(w, 300) }
	g.content = func(http.ResponseWriter, *http.Request) bool { return false }
	mux := http.NewServeMux()
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		g.fetches.Add(1)
		g.token(w, r)
	})
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) {
		g.contents.Add(1)
		if g.content(w, r) {
			return
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if !g.valid[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")] {
			// The scope of a challenge is a sample on ghcr.io, and not to be copied.
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+g.URL+`/token",service="s",scope="repository:user/image:pull"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	g.Server = httptest.NewServer(mux)
	base := &http.Transport{}
	g.transport = &Transport{Base: base, Realms: RealmPolicy{Upstream: mustURL(g.URL)}}
	t.Cleanup(func() {
		g.transport.Close()
		base.CloseIdleConnections()
		g.Close()
	})
	return g
}

// issue writes a new token that is valid.
func (g *registry) issue(w io.Writer, expires int) {
	token := fmt.Sprint("token-", time.Now().UnixNano())
	g.mu.Lock()
	g.valid[token] = true
	g.mu.Unlock()
	fmt.Fprintf(w, `{"token":%q,"expires_in":%d}`, token, expires)
}

func (g *registry) revoke() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.valid = map[string]bool{}
}

// get asks for a repository's content as cred.
func (g *registry) get(repository string, cred credential.Credential) (int, error) {
	ctx := WithAccess(context.Background(), Access{Repository: repository, Credential: cred})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL+"/v2/"+repository+"/tags/list", nil)
	if err != nil {
		return 0, err
	}
	resp, err := g.transport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, nil
}

func (g *registry) mustGet(t *testing.T, repository string, cred credential.Credential) {
	t.Helper()
	if status, err := g.get(repository, cred); err != nil || status != http.StatusOK {
		t.Fatalf("%d, %v", status, err)
	}
}

func login(name string) credential.Credential {
	return credential.Credential{Username: name, Password: credential.NewSecret("password of " + name), Generation: "test:" + name}
}

func TestFiftyColdRequestsCostOneToken(t *testing.T) {
	g := newRegistry(t)
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			if status, err := g.get("o/i", login("a")); err != nil || status != http.StatusOK {
				t.Errorf("%d, %v", status, err)
			}
		})
	}
	wait.Wait()
	if n := g.fetches.Load(); n != 1 {
		t.Errorf("%d tokens fetched", n)
	}
}

func TestAfterARevocationThirtyRequestsCostOneTokenMore(t *testing.T) {
	g := newRegistry(t)
	g.mustGet(t, "o/i", login("a"))
	g.revoke()
	var wait sync.WaitGroup
	for range 30 {
		wait.Go(func() {
			if status, err := g.get("o/i", login("a")); err != nil || status != http.StatusOK {
				t.Errorf("%d, %v", status, err)
			}
		})
	}
	wait.Wait()
	if n := g.fetches.Load(); n > 2 {
		t.Errorf("%d tokens fetched", n)
	}
}

func TestTokensAreKeptByIdentityAndScope(t *testing.T) {
	g := newRegistry(t)
	var asked []string
	g.token = func(w http.ResponseWriter, r *http.Request) {
		user, _, _ := r.BasicAuth()
		asked = append(asked, user+" "+r.URL.Query().Get("scope"))
		g.issue(w, 300)
	}
	for range 2 {
		g.mustGet(t, "o/i", login("a"))
		g.mustGet(t, "o/i", login("b"))
		g.mustGet(t, "o/i", credential.Credential{})
		g.mustGet(t, "o/j", login("a"))
	}
	want := "a repository:o/i:pull|b repository:o/i:pull| repository:o/i:pull|a repository:o/j:pull"
	if got := strings.Join(asked, "|"); got != want {
		t.Errorf("asked for %s, want %s", got, want)
	}
}

// A token that a registry made while a repository was public serves after it has become private.
func TestATokenFromBeforeIsNotUsedForARequestAnew(t *testing.T) {
	g := newRegistry(t)
	for range 2 {
		if status, err := g.get("a", credential.Credential{}); status != http.StatusOK || err != nil {
			t.Fatal(status, err)
		}
	}
	if n := g.fetches.Load(); n != 1 {
		t.Fatalf("%d tokens for two requests", n)
	}
	g.token = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }
	ctx := WithAccess(context.Background(), Access{Repository: "a", Anew: true})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL+"/v2/a/tags/list", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.transport.RoundTrip(req)
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			t.Error("the token from before was used")
		}
	}
	if n := g.fetches.Load(); n != 2 {
		t.Errorf("%d tokens were asked for", n)
	}
}

func TestATokenPastItsLifeIsNotUsed(t *testing.T) {
	g := newRegistry(t)
	g.token = func(w http.ResponseWriter, _ *http.Request) {
		tok := fmt.Sprint("t", g.fetches.Load())
		g.mu.Lock()
		g.valid[tok] = true
		g.mu.Unlock()
		fmt.Fprintf(w, `{"token":%q,"expires_in":0.000001}`, tok)
	}
	g.mustGet(t, "o/i", login("a"))
	g.mustGet(t, "o/i", login("a"))
	if n := g.fetches.Load(); n != 2 {
		t.Errorf("%d tokens fetched, want 2", n)
	}
}

func TestAFailedRefreshIsNotPaperedOverWithTheOldToken(t *testing.T) { // ecr-helper#679
	g := newRegistry(t)
	g.mustGet(t, "o/i", login("a"))
	g.revoke()
	g.token = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
	if status, err := g.get("o/i", login("a")); err == nil {
		t.Errorf("got %d", status)
	}
	// Nor is the failure kept.
	g.token = func(w http.ResponseWriter, _ *http.Request) { g.issue(w, 300) }
	g.mustGet(t, "o/i", login("a"))
}

func TestOneFailedLoginPerGeneration(t *testing.T) {
	g := newRegistry(t)
	g.token = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }
	for range 1000 {
		if status, err := g.get("o/i", login("bad")); !errors.Is(err, &oci.Error{Code: oci.Unauthorized}) {
			t.Fatalf("%d, %v", status, err)
		}
	}
	if n := g.fetches.Load(); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	mended := login("bad")
	mended.Generation = "test:mended"
	_, _ = g.get("o/i", mended)
	if n := g.fetches.Load(); n != 2 {
		t.Errorf("a corrected credential is not tried: %d logins", n)
	}
}

func TestOneFailedBasicLoginPerGeneration(t *testing.T) {
	g := newRegistry(t)
	g.content = func(w http.ResponseWriter, r *http.Request) bool {
		if _, p, ok := r.BasicAuth(); ok && p == "password of good" {
			return true
		} else if ok {
			g.fetches.Add(1)
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	g.mustGet(t, "o/i", login("good"))
	g.mustGet(t, "o/i", login("good"))
	for i := range 1000 {
		status, err := g.get("o/i", login("bad"))
		if refused := status == http.StatusUnauthorized || errors.Is(err, &oci.Error{Code: oci.Unauthorized}); !refused {
			t.Fatalf("%d: %d, %v", i, status, err)
		}
	}
	if n := g.fetches.Load(); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	if status, err := g.get("o/i", credential.Credential{}); err != nil || status != http.StatusUnauthorized {
		t.Errorf("anonymous: %d, %v", status, err)
	}
}

// A repository that a good login may not see must not cost it the others.
func TestARefusedRepositoryDoesNotRefuseTheLogin(t *testing.T) {
	g := newRegistry(t)
	g.token = func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.RawQuery, "secret") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		g.issue(w, 300)
	}
	g.mustGet(t, "o/i", login("a"))
	if _, err := g.get("o/secret", login("a")); err == nil {
		t.Error("let in")
	}
	g.mustGet(t, "o/j", login("a"))
	before := g.fetches.Load()
	if _, err := g.get("o/secret", login("a")); err == nil || g.fetches.Load() != before {
		t.Errorf("%v after %d logins, want none more", err, g.fetches.Load()-before)
	}
}

func TestNothingIsSentToAForeignRealm(t *testing.T) {
	evil := newRegistry(t)
	g := newRegistry(t)
	g.content = func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+evil.URL+`/token",service="s"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	_, err := g.get("o/i", login("a"))
	if err == nil || !strings.Contains(err.Error(), mustURL(evil.URL).Host) || !strings.Contains(err.Error(), "realms") {
		t.Errorf("%v", err)
	}
	if n := evil.fetches.Load(); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestIdentityTokensArePosted(t *testing.T) {
	g := newRegistry(t)
	g.token = func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.PostFormValue("grant_type") != "refresh_token" || r.PostFormValue("refresh_token") != "identity" ||
			r.PostFormValue("scope") != "repository:o/i:pull" || r.PostFormValue("service") != "s" || r.URL.RawQuery != "" || r.Header.Get("Authorization") != "" {
			t.Errorf("%s %v %v", r.Method, r.URL, r.PostForm)
		}
		g.issue(w, 300)
	}
	g.mustGet(t, "o/i", credential.Credential{IdentityToken: credential.NewSecret("identity"), Generation: "test:i"})
}

func TestAnIdentityTokenFallsBackToGet(t *testing.T) {
	for _, status := range []int{400, 401, 404, 405} {
		g := newRegistry(t)
		g.token = func(w http.ResponseWriter, r *http.Request) {
			if _, secret, ok := r.BasicAuth(); r.Method == http.MethodGet && ok && secret == "identity" {
				g.issue(w, 300)
				return
			}
			w.WriteHeader(status)
		}
		g.mustGet(t, "o/i", credential.Credential{Username: "u", IdentityToken: credential.NewSecret("identity"), Generation: "test:i"})
	}
}

func TestAPasswordIsPostedWhereGetIsNotKnown(t *testing.T) {
	for _, status := range []int{404, 405} {
		g := newRegistry(t)
		g.token = func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost && r.PostFormValue("grant_type") == "password" && r.PostFormValue("username") == "a" &&
				r.PostFormValue("password") == "password of a" {
				g.issue(w, 300)
				return
			}
			w.WriteHeader(status)
		}
		g.mustGet(t, "o/i", login("a"))
	}
}

func TestACallersLeavingHarmsNoOther(t *testing.T) {
	g := newRegistry(t)
	entered, release := make(chan struct{}), make(chan struct{})
	g.token = func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		g.issue(w, 300)
	}
	ctx, cancel := context.WithCancel(context.Background())
	first, second := make(chan error, 1), make(chan error, 1)
	ask := func(ctx context.Context, done chan error) {
		req, _ := http.NewRequestWithContext(WithAccess(ctx, Access{Repository: "o/i", Credential: login("a")}), http.MethodGet, g.URL+"/v2/o/i/tags/list", nil)
		resp, err := g.transport.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}
	go ask(ctx, first)
	<-entered
	go ask(context.Background(), second)
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the one who left: %v", err)
	}
	close(release)
	if err := <-second; err != nil {
		t.Errorf("the one who stayed: %v", err)
	}
	if n := g.fetches.Load(); n != 1 {
		t.Errorf("%d tokens fetched", n)
	}
}

func TestWithoutAccessNothingIsAnswered(t *testing.T) {
	g := newRegistry(t)
	req, _ := http.NewRequest(http.MethodGet, g.URL+"/v2/o/i/tags/list", nil)
	req.Header.Set("Authorization", "Bearer the client's own")
	resp, err := g.transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized || g.fetches.Load() != 0 {
		t.Errorf("%d, %d tokens fetched", resp.StatusCode, g.fetches.Load())
	}
}

func TestRelayAsksTheRealmAsTheClient(t *testing.T) {
	g := newRegistry(t)
	g.token = func(w http.ResponseWriter, r *http.Request) {
		user, _, _ := r.BasicAuth()
		want := url.Values{"service": {"s"}, "scope": {"repository:library/busybox:pull"}, "account": {"me"}}
		if user != "me" || r.URL.Query().Encode() != want.Encode() {
			t.Errorf("asked as %q: %s", user, r.URL.RawQuery)
		}
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprint(w, "as it is")
	}
	client := http.Request{Header: http.Header{}}
	client.SetBasicAuth("me", "mine")
	got, err := g.transport.Relay(context.Background(), TokenRequest{
		Authorization: credential.NewSecret(client.Header.Get("Authorization")),
		Scopes:        []string{"repository:library/busybox:pull"},
		Query:         url.Values{"account": {"me"}, "service": {"sidemirror"}, "x": {"y"}},
	})
	if err != nil || got.Status != http.StatusTeapot || string(got.Body) != "as it is" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRelayHandsNothingToAForeignRealm(t *testing.T) {
	evil, g := newRegistry(t), newRegistry(t)
	g.content = func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+evil.URL+`/token"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	if got, err := g.transport.Relay(context.Background(), TokenRequest{Authorization: credential.NewSecret("Basic canary")}); err == nil || evil.fetches.Load() != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// A helper's password was changed after the helper was asked.
func TestALoginThatItsSourceHasRenewedIsTriedOnceMore(t *testing.T) {
	for _, scheme := range []string{"Basic", "Bearer"} {
		t.Run(scheme, func(t *testing.T) {
			var logins atomic.Int32
			var srv *httptest.Server
			srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, password, ok := r.BasicAuth()
				if ok {
					logins.Add(1)
				}
				switch {
				case r.URL.Path == "/token" && password == "new":
					_, _ = io.WriteString(w, `{"token":"good"}`)
				case scheme == "Basic" && password == "new", r.Header.Get("Authorization") == "Bearer good":
				default:
					w.Header().Set("WWW-Authenticate", scheme+` realm="`+srv.URL+`/token"`)
					w.WriteHeader(http.StatusUnauthorized)
				}
			}))
			defer srv.Close()
			u, err := url.Parse(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			transport := &Transport{Base: http.DefaultTransport, Realms: RealmPolicy{Upstream: u}}
			defer transport.Close()
			login := func(password string) credential.Credential {
				return credential.Name("test", "x", credential.Credential{Username: "me", Password: credential.NewSecret(password)})
			}
			get := func(c credential.Credential) int {
				t.Helper()
				req, err := http.NewRequestWithContext(WithAccess(t.Context(), Access{Repository: "a/b", Credential: c}), http.MethodGet, srv.URL+"/v2/a/b/manifests/x", nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := transport.RoundTrip(req)
				if err != nil {
					return oci.AsError(err).HTTPStatus()
				}
				_ = resp.Body.Close()
				return resp.StatusCode
			}
			renewed := login("old").WithRenewal(func(context.Context) (credential.Credential, error) { return login("new"), nil })
			if status := get(renewed); status != http.StatusOK {
				t.Errorf("status %d", status)
			}
			same := login("wrong").WithRenewal(func(context.Context) (credential.Credential, error) { return login("wrong"), nil })
			before := logins.Load()
			if status := get(same); status != http.StatusUnauthorized || logins.Load() != before+1 {
				t.Errorf("a login that is the same as before: status %d after %d tries", status, logins.Load()-before)
			}
		})
	}
}
