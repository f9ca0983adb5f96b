package upstream

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/credential"
)

// tokenRegistry is a registry that gives a token for each scope and serves /v2/<name>/… to
// those who have the token of that name, except where route answers.
func tokenRegistry(t *testing.T, route func(w http.ResponseWriter, r *http.Request) bool) *httptest.Server {
	var s *httptest.Server
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			scope := base64.RawURLEncoding.EncodeToString([]byte(r.URL.Query().Get("scope")))
			_, _ = w.Write([]byte(`{"token":"` + scope + `"}`))
			return
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/blobs/")
		if !strings.HasPrefix(r.URL.Path, "/v2/") {
			name = "o/i" // what is elsewhere needs the token of the repository that led there
		}
		want := base64.RawURLEncoding.EncodeToString([]byte("repository:" + name + ":pull"))
		if r.Header.Get("Authorization") != "Bearer "+want {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = route(w, r)
	})
	return s
}

func asUser(path string) Request {
	r := anonymous(path)
	r.Access = &auth.Access{
		Repository: "o/i",
		Credential: credential.Credential{Username: "u", Password: credential.NewSecret("p"), Generation: "g"},
	}
	return r
}

func TestARedirectWithinTheUpstreamIsAuthorizedThereToo(t *testing.T) {
	for name, location := range map[string]string{
		"another path":           "/artifacts/blob",
		"a whole URL":            "SELF/artifacts/blob",
		"another repository":     "/v2/moved/i/blobs/x",
		"two hops, the same way": "/v2/o/i/blobs/again",
	} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				var self *httptest.Server
				self = tokenRegistry(t, func(w http.ResponseWriter, r *http.Request) bool {
					switch r.URL.Path {
					case "/v2/o/i/blobs/x":
						w.Header().Set("Location", strings.Replace(location, "SELF", self.URL, 1))
						w.WriteHeader(status)
					case "/v2/o/i/blobs/again":
						w.Header().Set("Location", "/artifacts/blob")
						w.WriteHeader(status)
					default:
						_, _ = w.Write([]byte("content"))
					}
					return true
				})
				u := newUpstream(t, Config{URL: mustURL(self.URL)})
				r := asUser("/v2/o/i/blobs/x")
				r.Method = method
				resp, err := u.Do(context.Background(), r)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Errorf("%s by %s, %d: %d", name, method, status, resp.StatusCode)
				}
			}
		}
	}
}

// What another host chooses gets no token, even where it is the upstream's own URL.
func TestARedirectBackFromAnotherHostIsNotAuthorized(t *testing.T) {
	var back atomic.Value
	elsewhere := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, back.Load().(string), http.StatusTemporaryRedirect)
	})
	var withToken atomic.Int32
	registry := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/o/i/blobs/x" && r.Header.Get("Authorization") != "":
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		case r.Header.Get("Authorization") != "":
			withToken.Add(1)
		default:
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	back.Store(registry.URL + "/v2/o/secret/blobs/x")
	u := newUpstream(t, Config{URL: mustURL(registry.URL), Registry: config.Registry{}})
	resp, err := u.Do(context.Background(), asUser("/v2/o/i/blobs/x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized || withToken.Load() != 0 {
		t.Errorf("%d, asked %d times with the login", resp.StatusCode, withToken.Load())
	}
}

func TestTheClientsOwnTokenFollowsARedirectWithinTheUpstream(t *testing.T) {
	registry := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer mine" {
			w.WriteHeader(http.StatusUnauthorized)
		} else if strings.HasPrefix(r.URL.Path, "/v2/") {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}
	})
	u := newUpstream(t, Config{URL: mustURL(registry.URL)})
	r := get("/v2/o/i/blobs/x")
	r.Authorization = credential.NewSecret("Bearer mine")
	resp, err := u.Do(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("%d", resp.StatusCode)
	}
}
