package traps

import (
	"net/http"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// Source: hubproxy#92.
func TestNamespaceWithTwoSegmentsIsNotSentToDockerHub(t *testing.T) {
	dockerHub, k8s := quirky.New(t, quirky.Options{}), quirky.New(t, quirky.Options{})
	for _, repository := range []string{"kube/proxy", "pause", "library/pause"} {
		k8s.Add(repository, "v1", image)
	}
	s := harness.Start(t, harness.Options{Cache: "none", Registries: []harness.Registry{
		{Name: "docker.io", Upstreams: []string{dockerHub.URL()}},
		{Name: "registry.k8s.io", Upstreams: []string{k8s.URL()}},
	}})
	r := &rig{Sidemirror: s, up: k8s, t: t}
	for _, p := range []string{
		"/v2/kube/proxy/manifests/v1?ns=registry.k8s.io",
		"/v2/pause/manifests/v1?ns=registry.k8s.io", // no library/ here
		"/v2/registry.k8s.io/kube/proxy/manifests/v1",
		"/v2/registry.k8s.io/pause/manifests/v1",
		"/v2/registry.k8s.io/kube/proxy/manifests/v1?ns=registry.k8s.io", // BuildKit
	} {
		a := r.Get(p, nil)
		r.whole(p, a, image.Bytes)
		if got := a.Header.Get("OCI-Namespace"); got != "registry.k8s.io" {
			t.Errorf("%s: OCI-Namespace %q", p, got)
		}
	}
	r.count(quirky.Registry, "GET", "/v2/kube/proxy/", 3)
	r.count(quirky.Registry, "GET", "/v2/pause/", 2)
	// The daemon's own look at its start is not counted.
	if n := dockerHub.Count(quirky.Registry, "", "/manifests/"); n != 0 {
		t.Errorf("%d requests came to Docker Hub", n)
	}
}

// Source: ciiiii/cloudflare-docker-proxy.
func TestQueriesAreForwardedAndNsIsNot(t *testing.T) {
	r := start(t, quirky.Options{}, nil)
	for _, p := range []string{
		"/v2/team/app/tags/list?n=2&last=a&ns=" + name,
		"/v2/team/app/referrers/" + image.Digest.String() + "?artifactType=application/sbom&ns=" + name,
		"/v2/team/app/manifests/v1?ns=" + name,
	} {
		r.status(p, r.Get(p, nil), 200)
	}
	seen := r.up.Requests(quirky.Registry, "GET", "/v2/team/app/")
	if len(seen) != 3 {
		t.Fatalf("%d requests upstream, want 3", len(seen))
	}
	if q := seen[0].Query; q.Get("n") != "2" || q.Get("last") != "a" {
		t.Errorf("tags were asked for with %v", q)
	}
	if q := seen[1].Query; q.Get("artifactType") != "application/sbom" {
		t.Errorf("referrers were asked for with %v", q)
	}
	for _, q := range seen {
		if q.Query.Has("ns") {
			t.Errorf("ns was forwarded: %s?%v", q.Path, q.Query)
		}
	}
}

// Source: kube-image-keeper#191.
func TestPortsAndIPv6InRegistryNames(t *testing.T) {
	names := []string{"r.test:5000", "localhost:5000", "127.0.0.1:5000", "[::1]:5000", "[2001:db8::7]:443", "r.test"}
	ups := map[string]*quirky.Server{}
	o := harness.Options{Cache: "none"}
	for _, n := range names {
		ups[n] = quirky.New(t, quirky.Options{})
		ups[n].Add(repo, "v1", image)
		o.Registries = append(o.Registries, harness.Registry{Name: n, Upstreams: []string{ups[n].URL()}})
	}
	s := harness.Start(t, o)
	for _, n := range names {
		r := &rig{Sidemirror: s, up: ups[n], t: t}
		r.whole(n, r.Get("/v2/team/app/manifests/v1?ns="+n, nil), image.Bytes)
		r.whole(n, r.Get("/v2/"+n+"/team/app/manifests/v1", nil), image.Bytes)
		r.count(quirky.Registry, "GET", "/v2/team/app/", 2)
	}
}

func TestUnknownRegistryIs404WithRoutesAndMalformedNamespaceIs400(t *testing.T) {
	r := start(t, quirky.Options{}, nil)
	for p, want := range map[string]int{
		"/v2/team/app/manifests/v1?ns=unknown.test":               404,
		"/v2/team/app/manifests/v1?ns=r.test:443":                 404,
		"/v2/unknown.test/team/app/manifests/v1":                  404,
		"/v2/team/app/manifests/v1?ns=r.test&ns=r.test":           400,
		"/v2/team/app/manifests/v1?ns=../r.test":                  400,
		"/v2/team/app/manifests/v1?ns=":                           400,
		"/v2/team/app/manifests/v1?ns=http://r.test":              400,
		"/v2/team/%2e%2e/app/manifests/v1?ns=r.test":              400,
		"/v2/team/../app/manifests/v1?ns=r.test":                  400,
		"/v2/team/app/blobs/sha256:xyz?ns=r.test":                 400,
		"/v2/Team/app/manifests/v1?ns=r.test":                     400,
		"/v2/team/app/manifests/v1/extra?ns=r.test":               404,
		"/v2/_catalog?ns=r.test":                                  405,
		"/v2/team/app/manifests/" + longTag() + "?ns=r.test":      400,
		"/v2/team/app/manifests/sha256:" + "00?ns=r.test":         400,
		"/v2/team/app/blobs/" + image.Digest.String() + "?ns=r.%": 400,
	} {
		r.status(p, r.Get(p, nil), want)
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
		a := r.Do(method, path("manifests/v1"), nil)
		r.status(method, a, http.StatusMethodNotAllowed)
	}
	if n := len(r.up.All()); n != 0 {
		t.Errorf("%d of these requests came to the upstream", n)
	}
}

func longTag() string {
	tag := make([]byte, 129)
	for i := range tag {
		tag[i] = 'a'
	}
	return string(tag)
}
