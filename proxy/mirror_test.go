package proxy

import (
	"io"
	"net/http"
	"net/url"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/config"
)

func TestAListOfTagsFromAMirrorWithAPrefixNamesTheRepositoryAsTheClientDoes(t *testing.T) {
	page := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>Sign in</html>")
	}
	tags := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/team/hub/library/alpine/tags/list" || r.URL.RawQuery != "n=1" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Link", `</v2/team/hub/library/alpine/tags/list?n=1&last=3.20>; rel="next"`)
		_, _ = io.WriteString(w, `{"name":"team/hub/library/alpine","tags":["3.20"]}`)
	}
	g := newRig(t, func(c *Config) { c.Registries[0].Upstreams[1].Prefix = "team/hub" }, page, tags)
	for path, want := range map[string][2]string{
		"/v2/library/alpine/tags/list?n=1&ns=docker.io": {`{"name":"library/alpine","tags":["3.20"]}`, `</v2/library/alpine/tags/list?last=3.20&n=1&ns=docker.io>; rel="next"`},
		"/v2/docker.io/library/alpine/tags/list?n=1":    {`{"name":"library/alpine","tags":["3.20"]}`, `</v2/docker.io/library/alpine/tags/list?last=3.20&n=1>; rel="next"`},
	} {
		resp := g.do(t, http.MethodGet, path)
		if string(resp.body) != want[0] || resp.Header.Get("Link") != want[1] {
			t.Errorf("%s: %d %s, Link %s", path, resp.StatusCode, resp.body, resp.Header.Get("Link"))
		}
	}
}

func TestASoleUpstreamIsTheRegistryUnlessOnlyAMirrorIsAskedSo(t *testing.T) {
	at := config.NewUpstream(&url.URL{Scheme: "https", Host: "r.example"})
	prefixed, namespaced, optional := at, at, at
	prefixed.Prefix, namespaced.Namespaced, optional.Optional = "hub", true, true
	for _, c := range []struct {
		name      string
		upstreams []config.Upstream
		want      bool
	}{
		{"docker.io", []config.Upstream{at}, true},
		{"docker.io", []config.Upstream{optional}, true},
		{"docker.io", []config.Upstream{prefixed}, false},
		{"docker.io", []config.Upstream{namespaced}, false},
		{"r.example", []config.Upstream{prefixed}, true},
		{"r.example", []config.Upstream{at, config.NewUpstream(&url.URL{Scheme: "https", Host: "x.example"})}, true},
		{"docker.io", []config.Upstream{at, config.NewUpstream(&url.URL{Scheme: "https", Host: "x.example"})}, false},
	} {
		if got := isHome(config.Registry{Name: c.name, Upstreams: c.upstreams}, c.upstreams[0]); got != c.want {
			t.Errorf("%s at %v: %v", c.name, c.upstreams, got)
		}
	}
}
