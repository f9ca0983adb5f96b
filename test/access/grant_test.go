package access

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// portal is a mirror that answers 200 with a sign-in page to every path that contains what, and
// 404 to the others.
func portal(t *testing.T, what string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, what) {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>please sign in</html>")
	}))
	t.Cleanup(s.Close)
	return s
}

func TestAServerThatAnswersAnythingOpensNoPrivateContent(t *testing.T) {
	for name, what := range map[string]string{"lists": "/tags/list", "referrers": "/referrers/", "everything": "/v2/"} {
		t.Run(name, func(t *testing.T) {
			mirror, own := portal(t, what), quirky.New(t, private("Bearer"))
			own.Add(repo, "v1", image)
			s := harness.Start(t, harness.Options{
				Registries: []harness.Registry{{Name: own.Host(), Upstreams: []string{mirror.URL, own.URL()}}},
				Logins:     map[string]string{own.Host(): user + ":" + password},
			})
			content := map[string][]byte{
				of(own.Host(), "manifests/"+image.Digest.String()):      image.Bytes,
				of(own.Host(), "blobs/"+layer.Digest.String()):          layer.Bytes,
				of(own.Host(), "blobs/"+image.Blobs[0].Digest.String()): image.Blobs[0].Bytes,
			}
			for p, want := range content {
				s.Get(p, nil).Whole(t, "a trusted caller: "+p, want)
			}
			other := untrusted(t)
			for range 2 {
				for _, what := range []string{"tags/list", "referrers/" + image.Digest.String(), "manifests/v1"} {
					s.DoWith(other, "GET", of(own.Host(), what), nil)
				}
				for p, want := range content {
					for _, method := range []string{"HEAD", "GET"} {
						a := s.DoWith(other, method, p, nil)
						if a.Status < 300 && (method == "HEAD" && what != "/v2/" || string(a.Body) == string(want)) {
							t.Errorf("an untrusted caller gets %d and %d bytes for %s %s", a.Status, len(a.Body), method, p)
						}
					}
				}
			}
		})
	}
}

// A repository is public, an anonymous caller pulls from it, and it becomes private.
func turnedPrivate(t *testing.T) (*quirky.Server, *harness.Sidemirror, *http.Client) {
	t.Helper()
	o := private("Bearer")
	o.Auth.Private = nil
	own := quirky.New(t, o)
	own.Add(repo, "v1", image)
	s := harness.Start(t, harness.Options{
		Registries: []harness.Registry{{Name: own.Host(), Upstreams: []string{own.URL()}}},
		Logins:     map[string]string{own.Host(): user + ":" + password},
	})
	other := untrusted(t)
	s.DoWith(other, "GET", of(own.Host(), "manifests/v1"), nil).Whole(t, "the public manifest", image.Bytes)
	s.DoWith(other, "GET", of(own.Host(), "blobs/"+layer.Digest.String()), nil).Whole(t, "the public layer", layer.Bytes)
	own.Set(func(o *quirky.Options) { o.Auth.Private = []string{"team/"} })
	own.RevokeTokens()
	own.Add(repo, "v1", moved)
	s.Get(of(own.Host(), "manifests/v1"), nil).Whole(t, "the private manifest, for a trusted caller", moved.Bytes)
	s.Get(of(own.Host(), "blobs/"+moved.Blobs[1].Digest.String()), nil).Whole(t, "the private layer, for a trusted caller", moved.Blobs[1].Bytes)
	return own, s, other
}

// noNewContent fails the test if an untrusted caller gets anything of the private image.
func noNewContent(t *testing.T, own *quirky.Server, s *harness.Sidemirror, other *http.Client) {
	t.Helper()
	for _, what := range []string{"manifests/v1", "manifests/" + moved.Digest.String(), "blobs/" + moved.Blobs[1].Digest.String()} {
		for _, method := range []string{"HEAD", "GET"} {
			a := s.DoWith(other, method, of(own.Host(), what), nil)
			if a.Status < 300 && a.Header.Get("Docker-Content-Digest") != image.Digest.String() {
				t.Errorf("an untrusted caller gets %d and %d bytes for %s %s", a.Status, len(a.Body), method, what)
			}
		}
	}
}

func TestARecentGrantDoesNotCoverWhatARepositoryHoldsSinceItIsPrivate(t *testing.T) {
	own, s, other := turnedPrivate(t)
	noNewContent(t, own, s, other)
}

func TestARegistryThatIsBusyDoesNotOpenARepositoryThatTurnedPrivate(t *testing.T) {
	for name, trouble := range map[string]func(*quirky.Options){
		"429":              func(o *quirky.Options) { o.Limit = quirky.Limit{Status: 429} },
		"429, for a while": func(o *quirky.Options) { o.Limit = quirky.Limit{Status: 429, RetryAfter: "60"} },
		"503": func(o *quirky.Options) {
			o.Intercept = func(_ quirky.Part, w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			own, s, other := turnedPrivate(t)
			own.Set(trouble)
			noNewContent(t, own, s, other)
			// The engine is served all the same.
			s.Get(of(own.Host(), "manifests/v1"), nil).Whole(t, "the private manifest, for a trusted caller", moved.Bytes)
		})
	}
}

// One upstream says that the caller may not have it. That another is away changes nothing.
func TestAnUpstreamThatIsAwayDoesNotOpenWhatAnotherRefuses(t *testing.T) {
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	defer away.Close()
	for name, upstreams := range map[string]func(own string) []string{
		"before it": func(own string) []string { return []string{away.URL, own} },
		"after it":  func(own string) []string { return []string{own, away.URL} },
	} {
		t.Run(name, func(t *testing.T) {
			own := quirky.New(t, quirky.Options{})
			own.Add(repo, "v1", image)
			s := harness.Start(t, harness.Options{Registries: []harness.Registry{{Name: own.Host(), Upstreams: upstreams(own.URL())}}})
			other := untrusted(t)
			s.DoWith(other, "GET", of(own.Host(), "manifests/v1"), nil).Whole(t, "the manifest", image.Bytes)
			own.Set(func(o *quirky.Options) {
				o.Intercept = func(_ quirky.Part, w http.ResponseWriter, _ *http.Request) bool {
					w.WriteHeader(http.StatusNotFound)
					return true
				}
			})
			if a := s.DoWith(other, "GET", of(own.Host(), "manifests/v1"), nil); a.Status < 400 {
				t.Errorf("a deleted tag is answered %d, Warning %q", a.Status, a.Header.Get("Warning"))
			}
		})
	}
}

// What a client has just been sent is covered by the grant that this made, whoever it is.
func TestWhatACallerWasSentIsNotAskedForAgain(t *testing.T) {
	for name, relay := range map[string]bool{"daemon": false, "relay": true} {
		t.Run(name, func(t *testing.T) {
			own := quirky.New(t, private("Bearer"))
			own.Add(repo, "v1", image)
			o := harness.Options{Registries: []harness.Registry{{Name: own.Host(), Upstreams: []string{own.URL()}, Relay: relay}}}
			header := http.Header{}
			if !relay {
				o.Logins = map[string]string{own.Host(): user + ":" + password}
			}
			s := harness.Start(t, o)
			if relay {
				basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
				a := s.Get("/v2/auth?service=sidemirror&scope=repository:"+repo+":pull&ns="+own.Host(), http.Header{"Authorization": {"Basic " + basic}})
				var body struct{ Token string }
				if err := json.Unmarshal(a.Body, &body); err != nil || body.Token == "" {
					t.Fatalf("%d %s", a.Status, a.Body)
				}
				header.Set("Authorization", "Bearer "+body.Token)
			}
			content := map[string][]byte{
				of(own.Host(), "manifests/"+image.Digest.String()): image.Bytes,
				of(own.Host(), "blobs/"+layer.Digest.String()):     layer.Bytes,
			}
			for p, want := range content {
				s.Get(p, header).Whole(t, p, want)
			}
			s.Eventually("the layer is stored", func() bool {
				own.Forget()
				s.Get(of(own.Host(), "blobs/"+layer.Digest.String()), header)
				return own.Count(quirky.Registry, "GET", "/blobs/") == 0
			})
			own.Forget()
			for p, want := range content {
				s.Get(p, header).Whole(t, p, want)
			}
			if n := own.Count(quirky.Registry, "", "/v2/"); n != 0 {
				t.Errorf("the upstream is asked %d times again", n)
			}
		})
	}
}
