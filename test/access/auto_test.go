package access

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// refusals are the ways in which a registry refuses an anonymous client.
var refusals = map[string]func(o *quirky.Options){
	"Bearer, 401 to the token":        func(*quirky.Options) {},
	"Bearer, 401 of the token server": func(o *quirky.Options) { o.Auth.RefuseAnonymous = true },
	"Bearer, 403 of the token server": func(o *quirky.Options) { o.Intercept = forbidden(quirky.Token) }, // GHCR
	"Bearer, 403 to the token":        func(o *quirky.Options) { o.Intercept = forbidden(quirky.Registry) },
	"Basic":                           func(o *quirky.Options) { o.Auth.Scheme = "Basic" },
}

// forbidden answers 403 to an anonymous client: the token server does, or the registry to a token
// of no user.
func forbidden(part quirky.Part) func(quirky.Part, http.ResponseWriter, *http.Request) bool {
	return func(p quirky.Part, w http.ResponseWriter, r *http.Request) bool {
		a := r.Header.Get("Authorization")
		anonymous := p == quirky.Token && a == "" || p == quirky.Registry && strings.HasPrefix(a, "Bearer token-of--")
		if p != part || !anonymous || r.Method == http.MethodPost {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`)
		return true
	}
}

// auto is a private registry and a sidemirror that has no login for it.
func auto(t *testing.T, change func(*quirky.Options)) (*quirky.Server, *harness.Sidemirror) {
	t.Helper()
	o := private("Bearer")
	if change != nil {
		change(&o)
	}
	own := quirky.New(t, o)
	own.Add(repo, "v1", image)
	s := harness.Start(t, harness.Options{
		Registries: []harness.Registry{{Name: own.Host(), Upstreams: []string{own.URL()}, ClientAuth: "auto"}},
		Secrets:    []string{password},
	})
	s.Eventually("the daemon looks whether its upstream is there", func() bool { return own.Count(quirky.Registry, "", "/v2/") > 0 })
	own.Forget()
	return own, s
}

// pod is a client with a pull secret, or without one if login is empty. It does what containerd
// does: it asks, and answers the challenge.
type pod struct {
	t     *testing.T
	s     *harness.Sidemirror
	login string
	token string
}

func (p *pod) header() http.Header {
	if p.token == "" {
		return nil
	}
	return http.Header{"Authorization": {p.token}}
}

// get asks for something of team/app. If it is challenged, it logs in and asks again.
func (p *pod) get(registry, what string) harness.Answer {
	p.t.Helper()
	a := p.s.Get(of(registry, what), p.header())
	if a.Status != http.StatusUnauthorized || p.login == "" {
		return a
	}
	challenge := a.Header.Get("WWW-Authenticate")
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.login))
	switch {
	case strings.HasPrefix(challenge, "Basic "):
		p.token = basic
	case strings.HasPrefix(challenge, "Bearer "):
		answer := p.s.Get("/v2/auth?service=sidemirror&scope=repository:"+repo+":pull&ns="+registry, http.Header{"Authorization": {basic}})
		var body struct{ Token string }
		if json.Unmarshal(answer.Body, &body) != nil || body.Token == "" {
			return answer
		}
		p.token = "Bearer " + body.Token
	default:
		p.t.Errorf("no challenge: %d %q", a.Status, challenge)
		return a
	}
	return p.s.Get(of(registry, what), p.header())
}

func (p *pod) pull(own *quirky.Server) {
	p.t.Helper()
	p.get(own.Host(), "manifests/v1").Whole(p.t, "the manifest", image.Bytes)
	for _, b := range image.Blobs {
		p.get(own.Host(), "blobs/"+b.Digest.String()).Whole(p.t, "a layer", b.Bytes)
	}
}

// refused fails the test if a client gets anything of the image.
func (p *pod) refused(own *quirky.Server, when string) {
	p.t.Helper()
	for _, what := range []string{"manifests/v1", "manifests/" + image.Digest.String(), "blobs/" + layer.Digest.String()} {
		if a := p.get(own.Host(), what); a.Status < 400 {
			p.t.Errorf("%s, a pod with the secret %q gets %s: %d", when, p.login, what, a.Status)
		}
	}
}

func TestAPodWithASecretPullsFromTheCacheAndNoOtherPodDoes(t *testing.T) {
	for how, change := range refusals {
		t.Run(how, func(t *testing.T) {
			own, s := auto(t, change)
			secret := user + ":" + password
			(&pod{t: t, s: s}).refused(own, "before the first pull")
			(&pod{t: t, s: s, login: secret}).pull(own)
			s.Eventually("every layer is stored", func() bool {
				own.Forget()
				(&pod{t: t, s: s, login: secret}).pull(own)
				return own.Count(quirky.Registry, "GET", "/blobs/") == 0
			})
			own.Forget()
			(&pod{t: t, s: s, login: secret}).pull(own)
			if n := own.Count(quirky.Registry, "GET", "/blobs/") + own.Count(quirky.Registry, "GET", "/manifests/"); n != 0 {
				t.Errorf("%d bodies were fetched for the second pull", n)
			}
			others := []*pod{{t: t, s: s}, {t: t, s: s, login: user + ":wrong"}, {t: t, s: s, token: "Bearer x"}, {t: t, s: s, token: "Basic eDp5"}}
			for _, other := range others {
				other.refused(own, "after the pull")
			}
			for what, trouble := range map[string]int{"busy": 429, "broken": 503} {
				own.Set(func(o *quirky.Options) { o.Limit.Status = trouble })
				for _, other := range others {
					other.refused(own, "while the registry is "+what)
				}
			}
			own.Set(func(o *quirky.Options) {
				o.Intercept = func(quirky.Part, http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }
			})
			for _, other := range others {
				other.refused(own, "while the registry is away")
			}
		})
	}
}

func TestAClientWithoutASecretCostsTheRegistryNoRequestMore(t *testing.T) {
	for how, change := range refusals {
		t.Run(how, func(t *testing.T) {
			own, s := auto(t, change)
			first := s.Get(of(own.Host(), "manifests/v1"), nil)
			if first.Status != 401 {
				t.Fatalf("status %d", first.Status)
			}
			s.Get(of(own.Host(), "blobs/"+layer.Digest.String()), nil).Is(t, "a layer", 401)
			own.Forget()
			if strings.HasPrefix(first.Header.Get("WWW-Authenticate"), "Bearer") {
				a := s.Get("/v2/auth?service=sidemirror&scope=repository:"+repo+":pull&ns="+own.Host(), nil)
				a.Is(t, "a token request without a login", 401)
			}
			// containerd asks for the same again.
			for range 5 {
				s.Get(of(own.Host(), "manifests/v1"), nil).Is(t, "again", 401)
				s.Get(of(own.Host(), "blobs/"+layer.Digest.String()), nil).Is(t, "a layer", 401)
			}
			if all := own.All(); len(all) != 0 {
				t.Errorf("the registry was asked %d times more: %s %s", len(all), all[0].Method, all[0].Path)
			}
		})
	}
}

func TestTheDaemonsLoginComesBeforeTheEngines(t *testing.T) {
	const engines = "engine-canary-90aa"
	own := quirky.New(t, private("Bearer"))
	own.Add(repo, "v1", image)
	s := harness.Start(t, harness.Options{
		Registries: []harness.Registry{{Name: own.Host(), Upstreams: []string{own.URL()}, ClientAuth: "auto"}},
		Logins:     map[string]string{own.Host(): user + ":" + password},
		Secrets:    []string{engines},
	})
	// An engine that knows nothing of a login, and one that sends its own at once.
	for _, token := range []string{"", "Bearer " + engines} {
		p := &pod{t: t, s: s, token: token}
		p.pull(own)
	}
	basic := base64.StdEncoding.EncodeToString([]byte("engine:" + engines))
	a := s.Get("/v2/auth?service=sidemirror&scope=repository:"+repo+":pull&ns="+own.Host(), http.Header{"Authorization": {"Basic " + basic}})
	a.Is(t, "the engine's token request", 200)
	for _, q := range own.All() {
		if strings.Contains(q.Authorization()+q.Body, engines) || strings.Contains(q.Authorization(), basic) {
			t.Errorf("the engine's login was sent to the registry: %s %s", q.Part, q.Path)
		}
	}
	// A caller that is not trusted gets nothing by the daemon's login, and what its own opens.
	other := untrusted(t)
	denied := s.DoWith(other, "GET", of(own.Host(), "manifests/v1"), nil)
	denied.Is(t, "an untrusted caller", 401)
	if !strings.HasPrefix(denied.Header.Get("WWW-Authenticate"), "Bearer ") {
		t.Errorf("an untrusted caller is not asked for its own login: %q", denied.Header.Get("WWW-Authenticate"))
	}
	own.Forget()
	s.DoWith(other, "GET", "/v2/auth?service=sidemirror&scope=repository:"+repo+":pull&ns="+own.Host(), http.Header{"Authorization": {"Basic " + basic}}).
		Is(t, "an untrusted caller with a wrong login", 401)
	for _, q := range own.All() {
		if strings.HasPrefix(q.Authorization(), "Basic ") && q.Authorization() != "Basic "+basic {
			t.Error("the daemon's login was sent for an untrusted caller")
		}
	}
}

func TestPublicImagesNeedNoTokenOfTheRegistrysAndAreShared(t *testing.T) {
	own, s := auto(t, func(o *quirky.Options) { o.Auth.Private = nil })
	p := &pod{t: t, s: s}
	p.pull(own)
	s.Eventually("every layer is stored", func() bool {
		own.Forget()
		p.pull(own)
		return own.Count(quirky.Registry, "GET", "/blobs/") == 0
	})
	own.Forget()
	// A client by prefix takes a token of sidemirror's own first.
	a := s.Get("/v2/auth?service=sidemirror&scope=repository:"+own.Host()+"/"+repo+":pull", nil)
	a.Is(t, "a token request", 200)
	if n := len(own.All()); n != 0 {
		t.Errorf("the registry was asked %d times for a token that is not needed", n)
	}
	var body struct{ Token string }
	if err := json.Unmarshal(a.Body, &body); err != nil || body.Token == "" {
		t.Fatalf("%s", a.Body)
	}
	(&pod{t: t, s: s, token: "Bearer " + body.Token}).pull(own)
	for _, q := range own.All() {
		if strings.Contains(q.Authorization(), body.Token) {
			t.Error("a token of sidemirror's own was sent to the registry")
		}
	}
	if n := own.Count(quirky.Registry, "GET", "/blobs/"); n != 0 {
		t.Errorf("%d layers were fetched again", n)
	}
}
