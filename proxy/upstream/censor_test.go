package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/credential"
)

const password = "canary/pass word"

func TestARefusalThatRepeatsASecretIsDropped(t *testing.T) {
	login := Identity{Access: &auth.Access{
		Repository: "o/i", Credential: credential.Credential{Username: "u", Password: credential.NewSecret(password), Generation: "g"},
	}}
	token := Identity{Access: &auth.Access{
		Repository: "o/i", Credential: credential.Credential{Username: "u", IdentityToken: credential.NewSecret(password), Generation: "g"},
	}}
	for name, tt := range map[string]struct {
		id      Identity
		scheme  string
		repeats func(r *http.Request) string
		kept    bool
	}{
		"nothing":               {login, "Basic", func(*http.Request) string { return "the reason" }, true},
		"the header of a login": {login, "Basic", func(r *http.Request) string { return r.Header.Get("Authorization") }, false},
		"the password": {login, "Basic", func(r *http.Request) string {
			_, p, _ := r.BasicAuth()
			return "wrong: " + p
		}, false},
		"the password in a URL": {login, "Basic", func(r *http.Request) string {
			_, p, _ := r.BasicAuth()
			return "see /login?p=" + url.QueryEscape(p)
		}, false},
		"the header of a token": {login, "Bearer", func(r *http.Request) string { return r.Header.Get("Authorization") }, false},
		"an identity token":     {token, "Bearer", func(*http.Request) string { return password }, false},
		"a client's own token": {Identity{Authorization: credential.NewSecret("Bearer mine")}, "", func(r *http.Request) string {
			return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, status := range []int{403, 404, 429, 500} {
				var s *httptest.Server
				s = serve(t, func(w http.ResponseWriter, r *http.Request) {
					switch {
					case r.URL.Path == "/token":
						fmt.Fprint(w, `{"token":"canary-token"}`)
						return
					case r.Header.Get("Authorization") == "":
						w.Header().Set("WWW-Authenticate", tt.scheme+` realm="`+s.URL+`/token"`)
						w.WriteHeader(http.StatusUnauthorized)
						return
					}
					w.WriteHeader(status)
					fmt.Fprint(w, tt.repeats(r))
				})
				r := get("/v2/o/i/manifests/v1")
				r.Identity = tt.id
				resp, err := newUpstream(t, Config{URL: mustURL(s.URL)}).Do(context.Background(), r)
				text := fmt.Sprint(err)
				if err == nil {
					body, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					text = string(body)
				}
				if status == 429 {
					_, text, _ = strings.Cut(text, "(429)")
					text = strings.TrimPrefix(text, ": ")
				}
				if (text != "") != tt.kept {
					t.Errorf("%d: %q", status, text)
				}
			}
		})
	}
}
