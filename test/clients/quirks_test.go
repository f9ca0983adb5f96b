package clients_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sidemirror/sidemirror/test/quirky"
)

// intercept answers requests in place of a registry. It returns true for those that it answered.
type intercept func(s *stage, w http.ResponseWriter, r *http.Request) bool

// quirks are what upstreams do that a client must not notice.
var quirks = []struct {
	name      string
	options   quirky.Options
	intercept intercept
	getsOnly  bool // a client that sends HEAD itself gets the upstream's refusal of it
}{
	{name: "a registry without quirks"},
	{name: "HEAD is refused with 400", options: headStatus(400), getsOnly: true},
	{name: "HEAD is refused with 403", options: headStatus(403), getsOnly: true},
	{name: "HEAD is refused with 404", options: headStatus(404), getsOnly: true},
	{name: "HEAD is refused with 405", options: headStatus(405)},
	{name: "HEAD is refused with 500", options: headStatus(500), getsOnly: true},
	{name: "HEAD is refused with 501", options: headStatus(501)},
	{name: "the media type has a parameter", options: quirky.Options{Manifest: quirky.Manifest{Type: v1.MediaTypeImageManifest + "; charset=utf-8"}}},
	{name: "blobs are compressed unasked", options: quirky.Options{Blobs: quirky.Blobs{Gzip: true}}},
	{name: "blobs are compressed unasked, of no length", options: quirky.Options{Blobs: quirky.Blobs{Gzip: true, Chunked: true}}},
	{name: "manifests are compressed unasked", options: quirky.Options{Manifest: quirky.Manifest{Gzip: true}}},
	{name: "the status is 203", options: quirky.Options{OKStatus: 203}},
	{name: "blobs are redirected within the registry, which asks for the token again", options: private(), intercept: moved("/blobs/")},
	{name: "manifests are redirected within the registry", options: private(), intercept: moved("/manifests/")},
	{name: "a private repository is hidden by a 404", options: private(), intercept: hidden},
	{name: "the first token is refused", options: private(), intercept: firstTokenRefused()},
	{name: "the challenge ends in a semicolon", options: challenge(func(realm, service, scope string) []string {
		return []string{fmt.Sprintf(`Bearer realm="%s",service="%s",scope="%s";`, realm, service, scope)}
	})},
	{name: "the challenge has values without quotes", options: challenge(func(realm, service, _ string) []string {
		return []string{"Bearer realm=" + realm + ",service=" + service}
	})},
	{name: "the challenge repeats itself", options: challenge(func(realm, service, scope string) []string {
		return []string{fmt.Sprintf(`Bearer realm="%s",service="%s",scope="%s",realm="%s",service="%s"`, realm, service, scope, realm, service)}
	})},
	{name: "the token server redirects within its origin", options: private(), intercept: func(_ *stage, w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/token" || r.URL.Query().Has("moved") {
			return false
		}
		http.Redirect(w, r, "/token?moved=1&"+r.URL.RawQuery, http.StatusFound)
		return true
	}},
}

func headStatus(status int) quirky.Options {
	return quirky.Options{Manifest: quirky.Manifest{HEADStatus: status}}
}

// private are the options of a registry whose repositories need a login.
func private() quirky.Options {
	return quirky.Options{Auth: quirky.Auth{Scheme: "Bearer", Users: map[string]string{user: password}, Private: []string{""}}}
}

func challenge(c quirky.Challenge) quirky.Options {
	o := private()
	o.Auth.Challenge = c
	return o
}

// moved redirects what is asked of part ("/blobs/") to another URL of the registry, and revokes the
// token that led there the first time.
func moved(part string) intercept {
	var revoked sync.Map
	return func(s *stage, w http.ResponseWriter, r *http.Request) bool {
		repository, _, ok := strings.Cut(r.URL.Path, part)
		if !ok || r.URL.Query().Has("moved") || r.Header.Get("Authorization") == "" {
			return false
		}
		if _, again := revoked.LoadOrStore(repository, true); !again {
			s.up.RevokeTokens()
		}
		w.Header().Set("Location", r.URL.Path+"?moved=1")
		w.WriteHeader(http.StatusTemporaryRedirect)
		return true
	}
}

// hidden answers 404 without a challenge to who has no token.
func hidden(_ *stage, w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Path == "/v2/" || r.URL.Path == "/token" || r.Header.Get("Authorization") != "" {
		return false
	}
	http.NotFound(w, r)
	return true
}

// firstTokenRefused revokes each repository's first token before it is used.
func firstTokenRefused() intercept {
	var refused sync.Map
	return func(s *stage, _ http.ResponseWriter, r *http.Request) bool {
		repository, _, manifest := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
		if !manifest || r.Header.Get("Authorization") == "" {
			return false
		}
		if _, again := refused.LoadOrStore(repository, true); !again {
			s.up.RevokeTokens()
		}
		return false
	}
}

// Each client pulls each image twice: the second time sidemirror has it, and asks the upstream
// only whether the tag still means it.
func TestEveryClientPullsFromEveryQuirkyRegistry(t *testing.T) {
	e := startEngines(t)
	for i, q := range quirks {
		t.Run(q.name, func(t *testing.T) {
			s := newStage(t, e, q.options, nil)
			if q.intercept != nil {
				s.up.Set(func(o *quirky.Options) {
					o.Intercept = func(_ quirky.Part, w http.ResponseWriter, r *http.Request) bool { return q.intercept(s, w, r) }
				})
			}
			for _, c := range clients {
				if q.getsOnly && !c.gets {
					continue
				}
				t.Run(c.name, func(t *testing.T) {
					s := *s
					s.t = t
					repository := fmt.Sprintf("alice/%s-%d", c.name, i)
					s.up.Add(repository, "v1", quirky.NewImage(false, repository, 70<<10, 100))
					for _, which := range []string{"first", "second"} {
						if err := c.pull(&s, repository+":v1"); err != nil {
							t.Errorf("the %s pull: %v", which, err)
						}
					}
				})
			}
		})
	}
}
