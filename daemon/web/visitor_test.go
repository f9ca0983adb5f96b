package web

import (
	"html"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/daemon/config"
)

func TestVisitorsSeeHowToPullAndNothingAboutTheHost(t *testing.T) {
	info := Info{
		Registries: []config.Registry{
			{Name: "docker.io", Hosts: []string{"docker.example.com"}},
			{Name: "ghcr.io", Hosts: []string{"ghcr.example.com"}, ClientAuth: "relay"},
			{Name: "registry.corp.example"},
			{Name: "*"},
		},
		Default: "docker.io", Listen: "127.0.0.1:305", Version: "v1.2.3", ShowImages: true,
		Trusted: func(*http.Request) bool { return true },
		Site:    func(*http.Request) bool { return true },
		Live: func() Live {
			return Live{At: time.Now(), Pulls: []Pull{{Image: "docker.io/team/secret:v1"}}, Engines: []Engine{{Name: "docker"}}}
		},
	}
	for host, wanted := range map[string][]string{
		"docker.example.com": {"docker pull docker.example.com/redis<", `"registry-mirrors": ["http://docker.example.com"]`, "/etc/containerd/certs.d/docker.io <", `upstreams = ["http://docker.example.com", "https://registry-1.docker.io"]`},
		"ghcr.example.com":   {"docker pull ghcr.example.com/owner/image:tag", "/etc/containerd/certs.d/ghcr.io <", `upstreams = ["http://ghcr.example.com", "https://ghcr.io"]`},
	} {
		for _, lang := range []string{"en", "zh"} {
			_, body := get(t, info, http.MethodGet, host, "/?lang="+lang)
			body = html.UnescapeString(body)
			for _, want := range wanted {
				if !strings.Contains(body, want) {
					t.Errorf("the page of %s in %s lacks %s", host, lang, want)
				}
			}
			for _, fact := range []string{"team/secret", "registry.corp.example", "127.0.0.1", "v1.2.3", "sidemirror status", "sidemirror revert", "sidemirror apply", "journalctl", vocabulary[english]["runs"], vocabulary[chinese]["runs"]} {
				if strings.Contains(body, fact) {
					t.Errorf("the page of %s in %s has %q", host, lang, fact)
				}
			}
		}
		if _, part := get(t, info, http.MethodGet, host, "/?part=live"); strings.Contains(part, "team/secret") {
			t.Errorf("the live part of %s has an image", host)
		}
	}
}
