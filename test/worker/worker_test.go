package worker

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func TestSlashIsAPageWithTheHostsName(t *testing.T) {
	w := start(t)
	for name, header := range map[string]http.Header{
		hubName:             host(hubName),
		w.Address():         {},
		ghcrName + ":305":   host(ghcrName + ":305"),
		"localhost:305":     host("localhost:305"),
		hubName + ", in zh": {"Host": {hubName}, "Accept-Language": {"zh-CN,zh;q=0.9"}},
	} {
		a := w.Get("/", header)
		w.status(name, a, 200)
		if got := a.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/html") {
			t.Errorf("%s: Content-Type %q", name, got)
		}
		shown, _, _ := strings.Cut(name, ",")
		if !bytes.Contains(a.Body, []byte(shown)) {
			t.Errorf("the page does not name %s", shown)
		}
	}
	chinese := w.Get("/", http.Header{"Host": {hubName}, "Accept-Language": {"zh-CN"}})
	english := w.Get("/", http.Header{"Host": {hubName}, "Accept-Language": {"en-GB"}})
	if bytes.Equal(chinese.Body, english.Body) || !bytes.Contains(chinese.Body, []byte("镜像")) || bytes.Contains(english.Body, []byte("镜像")) {
		t.Error("the page does not speak the reader's language")
	}
}

func TestSlashDoesNotEchoMarkupFromTheHost(t *testing.T) {
	w := start(t)
	for _, name := range []string{`<script>alert(1)</script>`, `"onload="x`} {
		a := w.Get("/", host(name))
		if a.Status == 200 || bytes.Contains(a.Body, []byte(name)) {
			t.Errorf("Host %s: status %d, %.200s", name, a.Status, a.Body)
		}
	}
}

func TestBaseWithoutCredentialsIs401WithOurOwnRealm(t *testing.T) {
	w := start(t)
	w.challenged("by Host", w.Get("/v2/", host(hubName)), "http://"+hubName+"/v2/auth", "")
	w.challenged("by Host with a port", w.Get("/v2/", host(ghcrName+":305")), "http://"+ghcrName+":305/v2/auth", "")
	w.challenged("the default", w.Get("/v2/", nil), w.URL()+"/v2/auth", "")
	w.challenged("by ns", w.Get("/v2/?ns=ghcr.io", nil), w.URL()+"/v2/auth?ns=ghcr.io", "")
	w.untouched()
}

func TestBaseWithTheClientsTokenIs200(t *testing.T) {
	w := start(t)
	token := w.token("/v2/auth?scope=repository:busybox:pull", host(hubName))
	header := host(hubName)
	header.Set("Authorization", "Bearer "+token)
	w.status("/v2/", w.Get("/v2/", header), 200)
}

func TestAuthAsksTheUpstreamsRealmForTheCompletedScope(t *testing.T) {
	for what, ask := range map[string]func(w *table) harness.Answer{
		"GET by Host": func(w *table) harness.Answer {
			return w.Get("/v2/auth?scope=repository:busybox:pull&service=sidemirror", login(host(hubName)))
		},
		"GET, the default": func(w *table) harness.Answer {
			return w.Get("/v2/auth?scope=repository:busybox:pull", login(http.Header{}))
		},
		"GET by ns": func(w *table) harness.Answer {
			return w.Get("/v2/auth?ns=docker.io&scope=repository:busybox:pull", login(http.Header{}))
		},
		"GET, completed already": func(w *table) harness.Answer {
			return w.Get("/v2/auth?scope=repository:library/busybox:pull", login(host(hubName)))
		},
		"GET, pull and push": func(w *table) harness.Answer {
			return w.Get("/v2/auth?scope=repository:busybox:pull,push", login(host(hubName)))
		},
		"GET by prefix": func(w *table) harness.Answer {
			return w.Get("/v2/auth?scope=repository:docker.io/busybox:pull", login(http.Header{}))
		},
		"POST": func(w *table) harness.Answer {
			return w.post("/v2/auth", url.Values{"scope": {"repository:busybox:pull"}, "grant_type": {"password"},
				"username": {user}, "password": {password}, "service": {"sidemirror"}, "client_id": {"containerd-client"}})
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := start(t)
			a := ask(w)
			w.status(what, a, 200)
			if !strings.Contains(string(a.Body), "token-of-"+user) {
				t.Errorf("no token of the client's user: %s", a.Body)
			}
			asked := w.hub.Requests(quirky.Token, "", "")
			if len(asked) != 1 {
				t.Fatalf("%d requests came to the upstream's realm, want 1", len(asked))
			}
			query := asked[0].Query
			if asked[0].Method == http.MethodPost {
				query, _ = url.ParseQuery(asked[0].Body)
			}
			if !slices.Equal(query["scope"], []string{"repository:library/busybox:pull"}) || query.Get("service") != "quirky" || query.Has("ns") {
				t.Errorf("the upstream's realm was asked with %v", query)
			}
			w.untouched()
		})
	}
}

func TestAuthHandsTheRealmsRefusalBack(t *testing.T) {
	w := start(t)
	header := host(hubName)
	header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":wrong")))
	w.status("a wrong password", w.Get("/v2/auth?scope=repository:busybox:pull", header), 401)
	if n := w.hub.Count(quirky.Token, "", ""); n != 1 {
		t.Errorf("%d requests came to the realm, want 1", n)
	}
	w.status("a scope that is none", w.Get("/v2/auth?scope=nonsense", host(hubName)), 400)
	w.untouched()
}

func TestShortNameIs301ToLibrary(t *testing.T) {
	w := start(t)
	digest := busybox.Blobs[1].Digest.String()
	for _, x := range []struct {
		path   string
		header http.Header
		want   string
	}{
		{"/v2/busybox/manifests/latest", host(hubName), "/v2/library/busybox/manifests/latest"},
		{"/v2/busybox/manifests/latest", nil, "/v2/library/busybox/manifests/latest"},
		{"/v2/busybox/manifests/latest?ns=docker.io", nil, "/v2/library/busybox/manifests/latest?ns=docker.io"},
		{"/v2/busybox/blobs/" + digest, host(hubName), "/v2/library/busybox/blobs/" + digest},
		{"/v2/busybox/tags/list?n=5&last=a", host(hubName), "/v2/library/busybox/tags/list?n=5&last=a"},
		{"/v2/busybox/referrers/" + digest + "?artifactType=x", host(hubName), "/v2/library/busybox/referrers/" + digest + "?artifactType=x"},
		{"/v2/docker.io/busybox/manifests/latest", nil, "/v2/docker.io/library/busybox/manifests/latest"},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			a := w.Do(method, x.path, x.header)
			if got := a.Header.Get("Location"); a.Status != http.StatusMovedPermanently || !sameURL(got, x.want) {
				t.Errorf("%s %s: status %d, Location %q; want 301, %q", method, x.path, a.Status, got, x.want)
			}
		}
	}
	// Nothing is completed elsewhere.
	w.challenged("ghcr.io", w.Get("/v2/busybox/manifests/latest", host(ghcrName)), "http://"+ghcrName+"/v2/auth", "repository:busybox:pull")
	if n := len(w.hub.All()); n != 0 {
		t.Errorf("%d of these requests came to Docker Hub", n)
	}
}

// sameURL compares paths to the byte and queries by what they say.
func sameURL(got, want string) bool {
	g, errG := url.Parse(got)
	w, errW := url.Parse(want)
	return errG == nil && errW == nil && g.Host == "" && g.Scheme == "" && g.Path == w.Path && g.Query().Encode() == w.Query().Encode()
}

func TestWholePullFollowsBlobRedirectsWithTheClientsToken(t *testing.T) {
	for _, x := range []struct {
		what, prefix, ns, name, scope string
		up                            func(*table) *quirky.Server
	}{
		{"by Host", "/v2/library/busybox/", "", hubName, "library/busybox", func(w *table) *quirky.Server { return w.hub }},
		{"by Host, ghcr.io", "/v2/o/i/", "", ghcrName, "o/i", func(w *table) *quirky.Server { return w.ghcr }},
		{"by ns", "/v2/o/i/", "?ns=ghcr.io", "", "o/i", func(w *table) *quirky.Server { return w.ghcr }},
		{"by prefix", "/v2/ghcr.io/o/i/", "", "", "ghcr.io/o/i", func(w *table) *quirky.Server { return w.ghcr }},
		{"the default", "/v2/library/busybox/", "", "", "library/busybox", func(w *table) *quirky.Server { return w.hub }},
	} {
		t.Run(x.what, func(t *testing.T) {
			w := start(t)
			named := func() http.Header {
				if x.name == "" {
					return http.Header{}
				}
				return host(x.name)
			}
			// As a client does: ask, be challenged, go where the challenge says.
			a := w.Get(x.prefix+"manifests/latest"+x.ns, named())
			realm := "http://" + x.name
			if x.name == "" {
				realm = w.URL()
			}
			w.challenged(x.what, a, realm+"/v2/auth"+x.ns, "repository:"+x.scope+":pull")
			separator := "?"
			if x.ns != "" {
				separator = "&"
			}
			token := w.token("/v2/auth"+x.ns+separator+"service=sidemirror&scope=repository:"+x.scope+":pull", login(named()))
			header := named()
			header.Set("Authorization", "Bearer "+token)
			w.whole(w.Get(x.prefix+"manifests/latest"+x.ns, header), busybox.Bytes)
			for _, b := range busybox.Blobs {
				w.whole(w.Get(x.prefix+"blobs/"+b.Digest.String()+x.ns, header), b.Bytes)
			}
			up := x.up(w)
			for _, q := range up.Requests(quirky.Registry, "GET", "/blobs/") {
				if q.Header.Get("Authorization") != "Bearer "+token {
					t.Error("the client's Bearer was not passed on")
				}
			}
			if n := up.Count(quirky.BlobStore, "GET", ""); n < len(busybox.Blobs) {
				t.Errorf("%d requests came to the blob store", n)
			}
			for _, q := range up.Requests(quirky.BlobStore, "", "") {
				if q.Authorization() != "" {
					t.Error("the client's Bearer was sent to the blob store")
				}
			}
			w.untouched()
		})
	}
}

func TestEveryUpstream401IsRewritten(t *testing.T) {
	w := start(t)
	digest := busybox.Blobs[1].Digest.String()
	for what, header := range map[string]http.Header{
		"no token":      {},
		"a wrong token": {"Authorization": {"Bearer wrong"}},
	} {
		for _, p := range []string{"manifests/latest", "manifests/" + busybox.Digest.String(), "blobs/" + digest, "tags/list", "referrers/" + digest} {
			for _, method := range []string{"GET", "HEAD"} {
				if method == "HEAD" && (p == "tags/list" || strings.HasPrefix(p, "referrers")) {
					continue
				}
				named := header.Clone()
				named.Set("Host", hubName)
				a := w.Do(method, "/v2/library/private/"+p, named)
				w.challenged(what+" "+method+" "+p, a, "http://"+hubName+"/v2/auth", "repository:library/private:pull")
				for h, values := range a.Header {
					if strings.Contains(strings.Join(values, " "), strings.TrimPrefix(w.hub.TokenOrigin(), "http://")) {
						t.Errorf("%s names the upstream's realm", h)
					}
				}
			}
		}
	}
	w.untouched()
}

func TestUnknownHostOrRegistryIs404WithTheRoutes(t *testing.T) {
	w := start(t)
	for what, x := range map[string]struct {
		answer harness.Answer
		code   string
		routes []string
	}{
		"a registry by ns":     {w.Get("/v2/a/b/manifests/latest?ns=unknown.test", nil), "NAME_UNKNOWN", []string{hubName, ghcrName, "docker.io", "ghcr.io"}},
		"a registry by prefix": {w.Get("/v2/unknown.test/a/manifests/latest", nil), "NAME_UNKNOWN", []string{hubName, ghcrName, "docker.io", "ghcr.io"}},
		// What came by a foreign name may be a web page: it learns our names and no more.
		"a Host":                          {w.Get("/v2/library/busybox/manifests/latest", login(host("unknown.example.lan"))), "NOT_FOUND", []string{hubName, ghcrName}},
		"a Host, /v2/":                    {w.Get("/v2/", host("unknown.example.lan")), "NOT_FOUND", []string{hubName, ghcrName}},
		"a Host, /v2/auth":                {w.Get("/v2/auth?scope=repository:busybox:pull", login(host("unknown.example.lan"))), "NOT_FOUND", []string{hubName, ghcrName}},
		"a Host that is like one of ours": {w.Get("/v2/", host("x"+hubName)), "NOT_FOUND", []string{hubName, ghcrName}},
	} {
		a := x.answer
		w.status(what, a, 404)
		var answer struct {
			Errors []struct{ Code, Message string }
			Routes any
		}
		if err := json.Unmarshal(a.Body, &answer); err != nil || len(answer.Errors) != 1 || answer.Errors[0].Code != x.code {
			t.Errorf("%s: %s", what, a.Body)
		}
		routes, _ := json.Marshal(answer.Routes)
		for _, route := range x.routes {
			if !strings.Contains(string(routes), route) {
				t.Errorf("%s: the routes %s do not name %s", what, routes, route)
			}
		}
	}
	for _, up := range []*quirky.Server{w.hub, w.ghcr} {
		if n := len(up.All()); n != 0 {
			t.Errorf("%d requests came to an upstream", n)
		}
	}
}
