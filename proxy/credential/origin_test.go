package credential

import (
	"context"
	"net/url"
	"testing"
)

func TestALoginIsFoundByTheOriginOfTheUpstream(t *testing.T) {
	doc, err := parseDocument(fileKind, []byte(`{"auths":{
		"https://index.docker.io/v1/": {"auth":"aHViOng="},
		"mirror.example": {"auth":"bWlycm9yOng="},
		"harbor.example/hub-proxy": {"auth":"cHJvamVjdDp4"},
		"plain.example:5000": {"auth":"cGxhaW46eA=="},
		"ported.example:443": {"auth":"cG9ydGVkOng="}}}`))
	if err != nil {
		t.Fatal(err)
	}
	source := found{doc}
	for upstream, want := range map[string]string{
		"https://registry-1.docker.io":          "hub",
		"https://index.docker.io/":              "hub",
		"https://registry-1.docker.io:443":      "hub",
		"https://mirror.example":                "mirror",
		"https://MIRROR.example:443/":           "mirror",
		"https://mirror.example/some/path":      "mirror",
		"https://mirror.example:8443":           "",
		"https://mirror.example.evil.example":   "",
		"https://harbor.example/v2/hub-proxy":   "project",
		"https://harbor.example/v2/hub-proxy/":  "project",
		"https://harbor.example/hub-proxy":      "project",
		"https://harbor.example/v2/hub-proxy/x": "project",
		"https://harbor.example/hub-proxy/v2":   "project",
		"https://harbor.example/x/v2/hub-proxy": "",
		"https://harbor.example/v2/hub-proxy2":  "",
		"https://harbor.example":                "",
		"http://plain.example:5000":             "plain",
		"https://ported.example":                "",
		"https://ported.example:443/v2/":        "ported",
		"http://ported.example":                 "",
		"https://docker.io.mirror.example":      "",
		"https://mirror.example:8443/docker.io": "",
	} {
		u, err := url.Parse(upstream)
		if err != nil {
			t.Fatal(err)
		}
		got, err := LookupFor(t.Context(), source, u, "library/alpine")
		if err != nil || got.Username != want {
			t.Errorf("%s gets the login of %q, %v; want %q", upstream, got.Username, err, want)
		}
	}
}

func TestALoginIsForTheHostOfItsRegistryOnly(t *testing.T) {
	for _, c := range []struct {
		upstream, registry string
		want               bool
	}{
		{"https://registry-1.docker.io", "docker.io", true},
		{"https://index.docker.io/v2/", "docker.io", true},
		{"https://mirror.example", "docker.io", false},
		{"https://quay.io:443", "quay.io", true},
		{"https://quay.io:443", "QUAY.io:443", true},
		{"https://quay.io", "quay.io:80", false},
		{"http://quay.io:80", "quay.io", true},
		{"https://[2001:db8::1]:5000", "[2001:db8::1]:5000", true},
		{"https://quay.io.example", "quay.io", false},
	} {
		u, err := url.Parse(c.upstream)
		if err != nil {
			t.Fatal(err)
		}
		if got := IsFor(u, c.registry); got != c.want {
			t.Errorf("%s is the upstream of %s: %v", c.upstream, c.registry, got)
		}
	}
}

// found is a source of the logins in a document.
type found struct{ *document }

func (f found) Lookup(ctx context.Context, registry, repository string) (Credential, error) {
	return f.find(ctx, nil, registry, repository)
}
