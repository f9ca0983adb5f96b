package auth

import (
	"net/url"
	"strings"
	"testing"
)

func mustURL(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

func TestRealmIsPinned(t *testing.T) {
	for _, tt := range []struct {
		name, upstream, realm string
		allowed               []string
		ok                    bool
	}{
		{"own host", "https://ghcr.io", "https://ghcr.io/token", nil, true},
		{"own host, port spelled out", "https://ghcr.io", "https://GHCR.io:443/token", nil, true},
		{"Docker Hub's", "https://registry-1.docker.io", "https://auth.docker.io/token", nil, true},
		{"GitLab's", "https://registry.gitlab.com", "https://gitlab.com/jwt/auth", nil, true},
		{"configured", "https://r.corp.example:5000", "https://sso.corp.example/t", []string{"https://sso.corp.example"}, true},
		{"configured with a port", "https://r.corp.example", "https://sso.corp.example:8443/t", []string{"https://sso.corp.example:8443/"}, true},
		{"plain upstream, plain realm on it", "http://127.0.0.1:5000", "http://127.0.0.1:5000/token", nil, true},
		{"plain realm, configured", "http://127.0.0.1:5000", "http://127.0.0.1:5001/token", []string{"http://127.0.0.1:5001"}, true},

		{"foreign host (CVE-2026-33540)", "https://ghcr.io", "https://evil.example/token", nil, false},
		{"other tenant of the same site", "https://a.azurecr.io", "https://evil.azurecr.io/t", nil, false},
		{"subdomain", "https://corp.example", "https://evil.corp.example/t", nil, false},
		{"suffix", "https://ghcr.io", "https://evilghcr.io/t", nil, false},
		{"other port", "https://r.corp.example:5000", "https://r.corp.example/t", nil, false},
		{"TLS taken off", "https://ghcr.io", "http://ghcr.io/token", nil, false},
		{"TLS taken off the known one", "https://registry-1.docker.io", "http://auth.docker.io/token", nil, false},
		{"another's known one", "https://ghcr.io", "https://auth.docker.io/token", nil, false},
		{"another port of localhost", "http://127.0.0.1:5000", "http://127.0.0.1:5001/token", nil, false},
		{"configured, other port", "https://r.corp.example", "https://sso.corp.example:1/t", []string{"https://sso.corp.example"}, false},
		{"userinfo", "https://ghcr.io", "https://ghcr.io@evil.example/t", nil, false},
		{"userinfo on the own host", "https://ghcr.io", "https://u:p@ghcr.io/t", nil, false},
		{"relative", "https://ghcr.io", "/token", nil, false},
		{"other scheme", "https://ghcr.io", "ftp://ghcr.io/token", nil, false},
		{"fragment", "https://ghcr.io", "https://ghcr.io/token#x", nil, false},
		{"opaque", "https://ghcr.io", "https:ghcr.io/token", nil, false},
		{"shorthand of loopback", "https://ghcr.io", "https://127.1/t", nil, false},
		{"empty", "https://ghcr.io", "", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := RealmPolicy{mustURL(tt.upstream), tt.allowed}.Check(tt.realm)
			if (err == nil) != tt.ok {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestRefusedRealmIsNamedWithTheSetting(t *testing.T) {
	_, err := RealmPolicy{Upstream: mustURL("https://r.example")}.Check("https://sso.example:8443/token?secret=canary")
	if err == nil || !strings.Contains(err.Error(), `realms = ["https://sso.example:8443"]`) || strings.Contains(err.Error(), "canary") {
		t.Error(err)
	}
}
