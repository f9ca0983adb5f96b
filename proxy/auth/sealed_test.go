package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/proxy/credential"
)

// basicRegistry is a registry that takes logins itself. It counts the logins that it is sent.
func basicRegistry(t *testing.T, user, password string) (*Transport, *atomic.Int32) {
	t.Helper()
	logins := &atomic.Int32{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, p, ok := r.BasicAuth()
		if ok {
			logins.Add(1)
		}
		if !ok || u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"wrong login"}]}`)
		}
	}))
	transport := &Transport{Base: http.DefaultTransport, Realms: RealmPolicy{Upstream: mustURL(srv.URL)}}
	t.Cleanup(func() {
		transport.Close()
		srv.Close()
	})
	return transport, logins
}

func basicHeader(user, password string) credential.Secret {
	return credential.NewSecret("Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
}

func tokenOf(t *testing.T, answer *Relayed) string {
	t.Helper()
	var body struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(answer.Body, &body); err != nil || answer.Status != http.StatusOK || body.Token == "" || body.AccessToken != body.Token {
		t.Fatalf("%d %s", answer.Status, answer.Body)
	}
	return body.Token
}

const team = "repository:team/app:pull"

func TestATokenOfARegistryThatTakesLoginsHoldsTheLoginForThatRepositoryAlone(t *testing.T) {
	transport, _ := basicRegistry(t, "me", "canary")
	for what, in := range map[string]TokenRequest{
		"GET":  {Authorization: basicHeader("me", "canary"), Registry: "r.test", Scopes: []string{team}},
		"POST": {Registry: "r.test", Scopes: []string{team}, Form: url.Values{"grant_type": {"password"}, "username": {"me"}, "password": {"canary"}}},
	} {
		answer, err := transport.Relay(t.Context(), in)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		token := tokenOf(t, answer)
		if strings.Contains(token, base64.RawURLEncoding.EncodeToString([]byte("canary"))) || strings.Contains(token, "canary") {
			t.Errorf("%s: the token shows the password", what)
		}
		here, other := transport.Realms.Upstream, mustURL("http://127.0.0.1:1/")
		for _, x := range []struct {
			header, registry, repository string
			upstream                     *url.URL
			login                        bool
		}{
			{"Bearer " + token, "r.test", "team/app", here, true},
			{"bearer  " + token, "r.test", "team/app", here, true},
			{"Bearer " + token, "r.test", "", here, true}, // for /v2/
			{"Bearer " + token, "r.test", "team/other", here, false},
			{"Bearer " + token, "r.test", "team", here, false},
			{"Bearer " + token, "other.test", "team/app", here, false},
			{"Bearer " + token, "r.test", "team/app", other, false},
			{"Bearer " + token[:len(token)-1], "r.test", "team/app", here, false},
			{"Bearer " + sealedPrefix, "r.test", "team/app", here, false},
			{"Bearer " + sealedPrefix + "AAAA", "r.test", "team/app", here, false},
		} {
			got := Present(x.header, x.registry, x.repository).For(x.upstream)
			if x.login && got.Reveal() != basicHeader("me", "canary").Reveal() || !x.login && !got.IsZero() {
				t.Errorf("%s: %+v: %v", what, x, got.Reveal())
			}
		}
	}
}

func TestATokenEndsAndIsOfThisProcess(t *testing.T) {
	s := tokenSealer()
	token := s.seal(sealed{Registry: "r.test", Login: "Basic x"})
	if got, ok := s.open(token); !ok || got.Login != "Basic x" {
		t.Errorf("%+v, %v", got, ok)
	}
	later := s
	later.started = later.started.Add(-sealedLife)
	if _, ok := later.open(token); ok {
		t.Error("a token that has ended is opened")
	}
	restarted := newSealer()
	if _, ok := restarted.open(token); ok {
		t.Error("a token of another process is opened")
	}
	// One bit anywhere makes it another token.
	raw := []byte(strings.TrimPrefix(token, sealedPrefix))
	for i := range raw {
		changed := append([]byte(nil), raw...)
		if changed[i] ^= 1; string(changed) == string(raw) {
			continue
		}
		if got, ok := s.open(sealedPrefix + string(changed)); ok && i < len(raw)-1 { // the last character has bits that count for nothing
			t.Errorf("a token with another character %d is opened: %+v", i, got)
		}
	}
	if first, second := s.seal(sealed{}), s.seal(sealed{}); first == second {
		t.Error("two tokens are the same")
	}
}

func TestATokenWithoutALoginGivesNothing(t *testing.T) {
	p := Present("Bearer "+tokenOf(t, NoLogin()), "r.test", "team/app")
	if !p.Own() || !p.For(mustURL("http://r.test")).IsZero() {
		t.Errorf("%+v", p)
	}
	if Present("Bearer x", "r.test", "").Own() || Present("", "", "").Own() {
		t.Error("another token is taken for one of sidemirror's own")
	}
}

func TestALoginThatARegistryRefusesGetsNoTokenAndIsNotTriedByTheOtherMethod(t *testing.T) {
	transport, logins := basicRegistry(t, "me", "canary")
	form := url.Values{"grant_type": {"password"}, "username": {"me"}, "password": {"wrong"}}
	for range 3 {
		for _, in := range []TokenRequest{
			{Registry: "r.test", Scopes: []string{team}, Form: form},
			{Registry: "r.test", Scopes: []string{team}, Authorization: basicHeader("me", "wrong")},
		} {
			answer, err := transport.Relay(t.Context(), in)
			if err != nil || answer.Status != http.StatusUnauthorized || !strings.Contains(string(answer.Body), "wrong login") {
				t.Errorf("%+v, %v", answer, err)
			}
		}
	}
	if n := logins.Load(); n != 1 {
		t.Errorf("the login was sent %d times, want once", n)
	}
	answer, err := transport.Relay(t.Context(), TokenRequest{Registry: "r.test", Scopes: []string{team}, Authorization: basicHeader("me", "canary")})
	if err != nil || answer.Status != http.StatusOK {
		t.Errorf("another login is refused too: %+v, %v", answer, err)
	}
}

func TestALoginThatDoesNotFitIntoAHeaderIsRefused(t *testing.T) {
	transport, logins := basicRegistry(t, "me", "canary")
	answer, err := transport.Relay(t.Context(), TokenRequest{Registry: "r.test", Scopes: []string{team}, Authorization: basicHeader("me", strings.Repeat("x", 16<<10))})
	if err == nil || logins.Load() != 0 {
		t.Errorf("%+v, %d logins sent", answer, logins.Load())
	}
}

// A client tries the same password by POST and by GET.
func TestAWrongPasswordReachesTheTokenServerOnce(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		g := newRegistry(t)
		g.token = func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, `{"details":"incorrect username or password"}`)
		}
		form := url.Values{"grant_type": {"password"}, "username": {"me"}, "password": {"wrong"}}
		for range 2 {
			for _, in := range []TokenRequest{{Scopes: []string{team}, Form: form}, {Scopes: []string{team}, Authorization: basicHeader("me", "wrong")}} {
				answer, err := g.transport.Relay(t.Context(), in)
				if err != nil || answer.Status != status || !strings.Contains(string(answer.Body), "incorrect") {
					t.Errorf("%+v, %v", answer, err)
				}
			}
		}
		if n := g.fetches.Load(); n != 1 {
			t.Errorf("%d: the token server was asked %d times, want once", status, n)
		}
	}
}

func TestAPostReachesATokenServerThatKnowsOneMethodOnly(t *testing.T) {
	for _, only := range []string{http.MethodGet, http.MethodPost} {
		g := newRegistry(t)
		g.token = func(w http.ResponseWriter, r *http.Request) {
			user, password, ok := r.BasicAuth()
			if r.Method == http.MethodPost {
				user, password, ok = r.PostFormValue("username"), r.PostFormValue("password"), r.PostFormValue("grant_type") == "password"
			}
			switch {
			case r.Method != only:
				w.WriteHeader(http.StatusMethodNotAllowed)
			case !ok || user != "me" || password != "mine" || r.FormValue("scope") != team:
				w.WriteHeader(http.StatusUnauthorized)
			default:
				fmt.Fprint(w, `{"token":"good","expires_in":60}`)
			}
		}
		form := url.Values{"grant_type": {"password"}, "username": {"me"}, "password": {"mine"}}
		for _, in := range []TokenRequest{{Scopes: []string{team}, Form: form}, {Scopes: []string{team}, Authorization: basicHeader("me", "mine")}} {
			answer, err := g.transport.Relay(context.Background(), in)
			if err != nil || tokenOf(t, answer) != "good" {
				t.Errorf("only %s: %+v, %v", only, answer, err)
			}
		}
	}
}

func TestATokenOfSidemirrorsOwnIsNotRelayed(t *testing.T) {
	g := newRegistry(t)
	g.token = func(w http.ResponseWriter, r *http.Request) {
		if a := r.Header.Get("Authorization"); a != "" {
			t.Errorf("the token server was sent %q", a)
		}
		g.issue(w, 60)
	}
	own := credential.NewSecret("Bearer " + tokenOf(t, NoLogin()))
	if _, err := g.transport.Relay(t.Context(), TokenRequest{Authorization: own, Scopes: []string{team}}); err != nil {
		t.Error(err)
	}
	if g.fetches.Load() == 0 {
		t.Error("the token server was not asked")
	}
}

func TestARefusalIsForgottenInTime(t *testing.T) {
	var r relayedRefusals
	r.put("k", &Relayed{Status: 401})
	if r.get("k") == nil || r.get("other") != nil {
		t.Error("the refusal is not remembered for its key alone")
	}
	old := r.stored["k"]
	old.until = time.Now()
	r.stored["k"] = old
	if r.get("k") != nil {
		t.Error("the refusal is remembered for ever")
	}
	for i := range 3 * maxRelayedRefusals {
		r.put(fmt.Sprint(i), &Relayed{})
	}
	if n := len(r.stored); n > maxRelayedRefusals {
		t.Errorf("%d refusals are stored", n)
	}
}

func FuzzNoHeaderWithATokenOfSidemirrorsOwnIsPassedOn(f *testing.F) {
	own := tokenSealer().seal(sealed{})
	for _, prefix := range []string{"Bearer ", "bearer\t", "Bearer  \t ", "Token ", "", " "} {
		f.Add(prefix, "")
		f.Add(prefix, " ")
	}
	u := mustURL("https://r.test")
	f.Fuzz(func(t *testing.T, before, after string) {
		before, after = strings.TrimSpace(before), strings.TrimSpace(after) // as package http leaves a header
		if strings.ContainsAny(before+after, " \t,") {
			return // no credentials of RFC 9110 look so
		}
		for _, header := range []string{before + " " + own + after, before + "\t" + own + after, own + after} {
			got := Present(header, "r.test", "team/app").For(u)
			if !got.IsZero() {
				t.Errorf("%q is passed on as %q", header, got.Reveal())
			}
		}
	})
}
