package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

const manifestPath = "/v2/library/alpine/manifests/3.20"

// mirror is a server that records what it is asked for.
type mirror struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string // "METHOD URI AUTHORIZATION"
	reply http.HandlerFunc
}

func newMirror(t *testing.T, reply http.HandlerFunc) *mirror {
	m := &mirror{reply: reply}
	m.Server = serve(t, func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		m.asked = append(m.asked, strings.TrimSpace(r.Method+" "+r.RequestURI+" "+r.Header.Get("Authorization")))
		reply := m.reply
		m.mu.Unlock()
		if reply != nil {
			reply(w, r)
		}
	})
	return m
}

func (m *mirror) set(reply http.HandlerFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reply = reply
}

func (m *mirror) requests() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.asked)
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = io.WriteString(w, "<html>Sign in</html>")
}

func TestAPrefixIsInThePathAndInTheScopeThatIsAskedFor(t *testing.T) {
	m := newMirror(t, nil)
	m.set(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			token := "other"
			if r.URL.Query().Get("scope") == "repository:team/hub-proxy/library/alpine:pull" {
				token = "prefixed"
			}
			_, _ = io.WriteString(w, `{"token":"`+token+`"}`)
		case r.URL.Path != "/v2/" && r.Header.Get("Authorization") != "Bearer prefixed":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+m.URL+`/token",service="s",scope="repository:anything:pull"`)
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/v2/team/hub-proxy/library/alpine/manifests/3.20":
			w.Header().Set("Location", "3.20-moved") // relative
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
	})
	u := newUpstream(t, Config{URL: mustURL(m.URL), Prefix: "team/hub-proxy"})
	r := anonymous(manifestPath)
	if resp := must(t, u, r); resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
	if u.Name() != m.URL+"/v2/team/hub-proxy" || u.Host() != mustURL(m.URL).Host+"/team/hub-proxy" {
		t.Errorf("it is called %s, %s", u.Name(), u.Host())
	}
	if ping := must(t, u, anonymous("/v2/")); ping.Request.URL.Path != "/v2/" {
		t.Errorf("the check of the API asks for %s", ping.Request.URL.Path)
	}
	if name := u.LocalRepository("team/hub-proxy/library/alpine"); name != "library/alpine" {
		t.Errorf("the local name is %s", name)
	}
}

func TestANamespacedMirrorIsToldTheRegistryInEachRequest(t *testing.T) {
	m := newMirror(t, nil)
	u := newUpstream(t, Config{URL: mustURL(m.URL), Namespace: "ghcr.io", Registry: config.Registry{HeaderTimeout: time.Second}})
	list := anonymous("/v2/o/i/tags/list")
	list.Query = map[string][]string{"n": {"5"}}
	must(t, u, list)
	must(t, u, anonymous("/v2/o/i/manifests/1"))
	must(t, u, anonymous("/v2/"))
	u.probe(time.Minute)
	u.Diagnose(t.Context(), credential.Credential{}, nil)
	want := []string{"GET /v2/o/i/tags/list?n=5&ns=ghcr.io", "GET /v2/o/i/manifests/1?ns=ghcr.io", "GET /v2/?ns=ghcr.io", "GET /v2/?ns=ghcr.io", "GET /v2/?ns=ghcr.io"}
	if got := m.requests(); !slices.Equal(got, want) {
		t.Errorf("it was asked %q", got)
	}
	if u.Name() != "ns+"+m.URL {
		t.Errorf("it is called %s", u.Name())
	}
}

// gone is an address at which no program listens. A port that was just closed may be another test's.
const gone = "http://127.0.0.1:1"

func TestAnOptionalMirrorsRefusalAndFailureDoNotCount(t *testing.T) {
	for name, reply := range map[string]http.HandlerFunc{
		"401": status(401), "403": status(403), "404": status(404), "429": status(429), "500": status(500), "a web page": page, "gone": nil,
	} {
		for home, homeStatus := range map[string]int{"the registry has it": 200, "the registry has it not": 404, "the registry refuses": 403} {
			t.Run(name+" and "+home, func(t *testing.T) {
				url := gone
				if reply != nil {
					url = newMirror(t, reply).URL
				}
				p := Pool{
					newUpstream(t, Config{URL: mustURL(url), Optional: true}),
					newUpstream(t, Config{URL: mustURL(newMirror(t, status(homeStatus)).URL)}),
				}
				resp, u, err := p.Do(t.Context(), anonymous(manifestPath), nil)
				if err != nil || resp.StatusCode != homeStatus || u != p[1] {
					t.Fatalf("%v from %v, %v", resp, u, err)
				}
				drain(resp)
			})
		}
	}
}

func TestIfAllOthersFailAnOptionalMirrorsRefusalIsReported(t *testing.T) {
	refusing := newMirror(t, status(401))
	p := Pool{newUpstream(t, Config{URL: mustURL(refusing.URL), Optional: true})}
	_, u, err := p.Do(t.Context(), anonymous(manifestPath), nil)
	if e := oci.AsError(err); e.Code != oci.Unauthorized || e.Upstream != 401 || u != p[0] {
		t.Errorf("%v from %v", err, u)
	}
	if r := p.Refusals(err); len(r) != 1 || Away(err, p[0].Name()) {
		t.Errorf("refused by %v", r)
	}
	failing := newUpstream(t, Config{URL: mustURL(newMirror(t, status(503)).URL)})
	p = append(p, failing)
	if _, u, err = p.Do(t.Context(), anonymous(manifestPath), nil); oci.AsError(err).Upstream != 503 || u != failing || len(p.Refusals(err)) != 1 {
		t.Errorf("%v from %v", err, u)
	}
}

func TestARefusalByAMirrorThatIsNotOptionalIsFinal(t *testing.T) {
	home := newMirror(t, nil)
	for _, code := range []int{401, 403} {
		p := Pool{newUpstream(t, Config{URL: mustURL(newMirror(t, status(code)).URL)}), newUpstream(t, Config{URL: mustURL(home.URL)})}
		resp, u, err := p.Do(t.Context(), anonymous(manifestPath), nil)
		if err != nil || resp.StatusCode != code || u != p[0] {
			t.Fatalf("%v from %v, %v", resp, u, err)
		}
		drain(resp)
	}
	if asked := home.requests(); len(asked) != 0 {
		t.Errorf("the registry was asked %q", asked)
	}
}

func TestEachMirrorIsAskedInItsOwnIdentityAlsoWhenTwoAreAskedAtOnce(t *testing.T) {
	hung := make(chan struct{})
	defer close(hung)
	challenge := func(then http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "" {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			then(w, r)
		}
	}
	first := newMirror(t, challenge(func(http.ResponseWriter, *http.Request) { <-hung }))
	second := newMirror(t, challenge(status(200)))
	p := Pool{newUpstream(t, Config{URL: mustURL(first.URL)}), newUpstream(t, Config{URL: mustURL(second.URL)})}
	as := func(u *Upstream) Identity {
		name := map[*Upstream]string{p[0]: "mirror", p[1]: "registry"}[u]
		return Identity{Access: &auth.Access{Credential: credential.Credential{Username: name, Password: credential.NewSecret("x"), Generation: name}}}
	}
	resp, u, err := p.Do(t.Context(), get(manifestPath), as)
	if err != nil || u != p[1] {
		t.Fatalf("%v, %v", u, err)
	}
	drain(resp)
	for m, own := range map[*mirror]string{first: "bWlycm9yOng=", second: "cmVnaXN0cnk6eA=="} {
		for _, r := range m.requests() {
			if i := strings.Index(r, "Basic "); i >= 0 && r[i:] != "Basic "+own {
				t.Errorf("it got another login: %s", r)
			}
		}
		if last := m.requests(); !strings.HasSuffix(last[len(last)-1], own) {
			t.Errorf("it did not get its own login: %q", last)
		}
	}
}

func TestASilentMirrorIsStillAskedForWhatTheOthersDoNotHave(t *testing.T) {
	for _, optional := range []bool{false, true} {
		mirror, home := newMirror(t, nil), newMirror(t, status(404))
		p := Pool{newUpstream(t, Config{URL: mustURL(mirror.URL), Optional: optional}), newUpstream(t, Config{URL: mustURL(home.URL)})}
		p[0].pace.base = time.Hour
		p[0].pace.skip(skipSilent, ofManifest)
		resp, _, err := p.Do(t.Context(), anonymous(manifestPath), nil)
		if want := map[bool]int{false: 200, true: 404}[optional]; err != nil || resp.StatusCode != want {
			t.Fatalf("optional %v: %v, %v", optional, resp, err)
		}
		drain(resp)
		if len(home.requests()) != 1 {
			t.Errorf("the registry was asked %q", home.requests())
		}
	}
}

// skips collects what an upstream reports of being skipped.
type skips struct {
	mu   sync.Mutex
	errs []error
}

func (s *skips) add(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs = append(s.errs, err)
}

func (s *skips) list() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.errs)
}

func TestAMirrorThatNeverRespondsIsWaitedForOnceAndTriedAgainInTheBackground(t *testing.T) {
	release := make(chan struct{})
	hang := func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}
	mirror, home := newMirror(t, hang), newMirror(t, nil)
	var seen skips
	p := Pool{newUpstream(t, Config{URL: mustURL(mirror.URL), SkipChanged: seen.add}), newUpstream(t, Config{URL: mustURL(home.URL)})}
	p[0].pace.base = time.Hour
	ask := func() *Upstream {
		resp, u, err := p.Do(context.Background(), anonymous(manifestPath), nil)
		if err != nil {
			t.Fatal(err)
		}
		drain(resp)
		return u
	}
	for range 20 {
		if u := ask(); u != p[1] {
			t.Fatalf("%s responded", u.Host())
		}
	}
	if asked := mirror.requests(); len(asked) != 1 {
		t.Errorf("the mirror was asked %q", asked)
	}
	var why *SkippedError
	if s := seen.list(); len(s) != 1 || !errors.As(s[0], &why) || !why.Silent || !strings.Contains(why.Error(), "no response after 1") {
		t.Errorf("it reported %v", s)
	}
	// It is tried again, without a client that waits.
	p[0].pace.makeDue()
	ask()
	waitUntil(t, func() bool { return len(mirror.requests()) == 2 })
	if last := mirror.requests()[1]; !strings.HasPrefix(last, "HEAD "+manifestPath) {
		t.Errorf("it was tried by %s", last)
	}
	close(release)
	waitUntil(t, func() bool { return len(seen.list()) == 2 || p[0].pace.isResting() })
	mirror.set(nil)
	p[0].pace.makeDue()
	waitUntil(t, func() bool { return ask() == p[0] })
	if s := seen.list(); len(s) != 2 || s[1] != nil {
		t.Errorf("it reported %v", s)
	}
}

func waitUntil(t *testing.T, is func() bool) {
	t.Helper()
	for range 3000 {
		if is() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it did not happen")
}

func TestA404DoesNotCountWhileAnotherUpstreamIsOutOfReachUnlessThatOneIsOptional(t *testing.T) {
	for _, optional := range []bool{false, true} {
		p := Pool{
			newUpstream(t, Config{URL: mustURL(gone), Optional: optional}),
			newUpstream(t, Config{URL: mustURL(newMirror(t, status(404)).URL)}),
		}
		for _, when := range []string{"it is asked", "it is known to be out of reach"} {
			resp, _, err := p.Do(t.Context(), anonymous(manifestPath), nil)
			switch {
			case optional && (err != nil || resp.StatusCode != http.StatusNotFound):
				t.Errorf("optional, when %s: %v", when, err)
			case !optional && (!OutOfReach(err) || !Away(err, p[0].Name()) || Away(err, p[1].Name())):
				t.Errorf("when %s: %v", when, err)
			}
			if err == nil {
				drain(resp)
			}
		}
	}
}
