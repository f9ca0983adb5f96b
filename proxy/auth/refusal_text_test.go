package auth

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// refusing is a registry that refuses every login with a status and a body. It counts the logins.
func refusing(t *testing.T, scheme string, status int, body string) (*Transport, *atomic.Int32) {
	t.Helper()
	logins := &atomic.Int32{}
	var srv *httptest.Server
	srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); ok {
			logins.Add(1)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			return
		}
		w.Header().Set("WWW-Authenticate", scheme+` realm="`+srv.URL+`/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	transport := &Transport{Base: http.DefaultTransport, Realms: RealmPolicy{Upstream: mustURL(srv.URL)}}
	t.Cleanup(func() {
		transport.Close()
		srv.Close()
	})
	return transport, logins
}

// ask asks for a repository with the login of "a" and returns what the person gets to read.
func ask(t *testing.T, transport *Transport, repository string) string {
	t.Helper()
	ctx := WithAccess(t.Context(), Access{Repository: repository, Credential: login("a")})
	url := transport.Realms.Upstream.String() + "/v2/" + repository + "/tags/list"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	e := &oci.Error{}
	e.ReadRefusal(resp)
	return fmt.Sprintf("%d%s", resp.StatusCode, e.Message)
}

// GHCR's and ECR's token servers answer 403 to a wrong password.
func TestALoginThatIsRefusedWith403IsNotTriedAtEachRequest(t *testing.T) {
	for _, scheme := range []string{"Bearer", "Basic"} {
		for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
			t.Run(fmt.Sprint(scheme, " ", status), func(t *testing.T) {
				transport, logins := refusing(t, scheme, status, `{"errors":[{"code":"DENIED","message":"the token has EXPIRED"}]}`)
				for i := range 20 {
					if text := ask(t, transport, fmt.Sprint("o/i", i)); !strings.Contains(text, "EXPIRED") {
						t.Errorf("request %d: the registry's words are missing: %s", i+1, text)
					}
				}
				if n := logins.Load(); n != 1 {
					t.Errorf("the login was sent %d times, want once", n)
				}
			})
		}
	}
}

func TestARegistrysReasonIsReadInTheFormsThatTokenServersUse(t *testing.T) {
	for body, words := range map[string]string{
		`{"details":"incorrect username or password"}`:                 "incorrect username or password", // Docker Hub
		`{"errors":[{"code":"DENIED","message":"requested access"}]}`:  "requested access",               // GHCR
		`{"error":"invalid_grant","error_description":"token is old"}`: "token is old",                   // OAuth2
		"Your authorization token has expired.":                        "Your authorization token has expired.",
	} {
		transport, _ := refusing(t, "Bearer", http.StatusUnauthorized, body)
		for range 2 {
			if text := ask(t, transport, "o/i"); !strings.Contains(text, words) {
				t.Errorf("%s: %s", body, text)
			}
		}
	}
}

func TestARefusalThatRepeatsTheLoginIsNotPassedOn(t *testing.T) {
	secret := login("a").Password.Reveal()
	for _, scheme := range []string{"Bearer", "Basic"} {
		for _, echo := range []string{secret, "Basic " + strings.TrimPrefix(basic(login("a")).header.Reveal(), "Basic ")} {
			transport, _ := refusing(t, scheme, http.StatusForbidden, "you sent "+echo)
			for range 2 {
				if text := ask(t, transport, "o/i"); strings.Contains(text, echo) || strings.Contains(text, "you sent") {
					t.Errorf("%s: the login is repeated: %s", scheme, text)
				}
			}
		}
	}
}
