package web

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"html"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/sidemirror/sidemirror/daemon/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var served = Info{
	Registries: []config.Registry{
		{Name: "docker.io", Hosts: []string{"docker.example.lan"}},
		{Name: "quay.io", ClientAuth: "relay"},
		{Name: "ghcr.io"},
		{Name: "*"},
	},
	Default: "docker.io",
	Listen:  "127.0.0.1:305",
	Version: "v1.2.3",
}

// get requests target from host and returns the response and its body.
func get(t *testing.T, info Info, method, host, target string, header ...string) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequest(method, "http://placeholder"+target, nil)
	r.Host = host
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Handler(info).ServeHTTP(w, r)
	return w.Result(), w.Body.String()
}

func TestEveryCommandUsesTheHostOfTheRequest(t *testing.T) {
	for _, lang := range []string{"en", "zh"} {
		_, body := get(t, served, "GET", "mirror.example.lan:305", "/", "Accept-Language", lang)
		for _, want := range []string{
			"docker pull mirror.example.lan:305/ghcr.io/owner/image:tag",
			"docker pull mirror.example.lan:305/redis<",
			"docker pull mirror.example.lan:305/library/redis<",
			"docker pull mirror.example.lan:305/bitnami/redis<",
			"docker tag mirror.example.lan:305/redis redis",
			"ctr images pull --plain-http mirror.example.lan:305/library/redis:latest",
			"docker rmi mirror.example.lan:305/ghcr.io/owner/image:tag",
			`path, mirror = "/etc/docker/daemon.json", "http://mirror.example.lan:305"`,
			`[host."http://mirror.example.lan:305"]`,
			`capabilities = ["pull", "resolve"]`,
			`"insecure-registries": ["mirror.example.lan:305"]`,
			"/etc/containerd/certs.d/docker.io <", "/etc/docker/certs.d/docker.io <",
			"sidemirror revert", "quay.io", "docker.example.lan", "v1.2.3",
		} {
			if !strings.Contains(html.UnescapeString(body), want) {
				t.Errorf("%s page lacks %s", lang, want)
			}
		}
		if strings.Contains(body, "127.0.0.1:305") {
			t.Errorf("%s page names the listener in addition to the Host of the request", lang)
		}
	}
}

func TestNameAndSchemeFollowTheRequest(t *testing.T) {
	for _, c := range []struct {
		name            string
		host            string
		tls             bool
		wantHost, want  string
		wantInsecureKey bool
	}{
		{"loopback needs no insecure-registries", "127.0.0.1:305", false, "127.0.0.1:305", "http://127.0.0.1:305", false},
		{"IPv6 loopback keeps its brackets", "[::1]:305", false, "[::1]:305", "http://[::1]:305", false},
		{"localhost without a port is a registry", "localhost", false, "localhost", "http://localhost", false},
		{"no Host at all", "", false, "127.0.0.1:305", "http://127.0.0.1:305", false},
		{"a bare word would be a user of Docker Hub", "mirror", false, "mirror:80", "http://mirror", true},
		{"another host without TLS", "10.0.0.1:305", false, "10.0.0.1:305", "http://10.0.0.1:305", true},
		{"another host with TLS", "mirror.example", true, "mirror.example", "https://mirror.example", false},
		{"a bare word with TLS", "mirror", true, "mirror:443", "https://mirror", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Host = c.host
			if c.tls {
				r.TLS = &tls.ConnectionState{}
			}
			w := httptest.NewRecorder()
			Handler(served).ServeHTTP(w, r)
			body := strings.ReplaceAll(w.Body.String(), "&#34;", `"`)
			if want := "docker pull " + c.wantHost + "/ghcr.io/owner/image:tag"; !strings.Contains(body, want) {
				t.Errorf("page lacks %s", want)
			}
			if want := `[host."` + c.want + `"]`; !strings.Contains(body, want) {
				t.Errorf("page lacks %s", want)
			}
			if got := strings.Contains(body, "insecure-registries"); got != c.wantInsecureKey {
				t.Errorf("insecure-registries shown: %v, want %v", got, c.wantInsecureKey)
			}
		})
	}
}

func TestHostOfOneRegistryShowsNoPrefix(t *testing.T) {
	_, body := get(t, served, "GET", "Docker.Example.lan:305", "/", "Accept-Language", "en")
	if !strings.Contains(body, "docker pull Docker.Example.lan:305/library/redis") {
		t.Error("page lacks the pull by the registry's own host")
	}
	if strings.Contains(body, "Docker.Example.lan:305/ghcr.io") {
		t.Error("page shows a prefix that this host does not understand")
	}
}

func TestPageWithoutRegistriesHasNoIncompleteCommand(t *testing.T) {
	_, body := get(t, Info{}, "GET", "localhost:305", "/", "Accept-Language", "en")
	if strings.Contains(body, "docker pull") || strings.Contains(body, "docker tag") {
		t.Error("page shows a pull of a registry that is not served")
	}
	if !strings.Contains(body, `<td colspan="3">none</td>`) {
		t.Error("page does not say that no registry is served")
	}
}

func TestHostileHostStaysText(t *testing.T) {
	_, body := get(t, served, "GET", `"><script>alert(1)</script>`, "/")
	if strings.Contains(body, "<script>alert") {
		t.Fatal("the Host header became markup")
	}
}

func TestLanguageFollowsTheReader(t *testing.T) {
	for _, c := range []struct{ accept, query, want string }{
		{"", "", "en"},
		{"zh-CN,zh;q=0.9,en;q=0.8", "", "zh"},
		{"en-GB,en;q=0.9,zh;q=0.8", "", "en"},
		{"zh-CN", "?lang=en", "en"},
		{"en", "?lang=zh", "zh"},
		{"zh", "?lang=<script>", "zh"},
	} {
		resp, body := get(t, served, "GET", "localhost:305", "/"+c.query, "Accept-Language", c.accept)
		want := language(c.want).tag()
		if got := resp.Header.Get("Content-Language"); got != want || !strings.Contains(body, `<html lang="`+want+`">`) {
			t.Errorf("Accept-Language %q, %q: page in %q, want %q", c.accept, c.query, got, c.want)
		}
		if resp.Header.Get("Vary") != "Accept-Language" {
			t.Errorf("Accept-Language %q: a cache would hand the page to readers of the other language", c.accept)
		}
	}
}

func TestPageLoadsNothingAndRunsOnlyItsOwnScript(t *testing.T) {
	resp, body := get(t, busy(true), "GET", "localhost:305", "/")
	csp := resp.Header.Get("Content-Security-Policy")
	for _, element := range []string{"style", "script"} {
		text := regexp.MustCompile(`(?s)<` + element + `>(.*)</` + element + `>`).FindStringSubmatch(body)
		if text == nil {
			t.Fatalf("no %s in the page", element)
		}
		sum := sha256.Sum256([]byte(text[1]))
		if want := element + "-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "';"; !strings.Contains(csp, want) {
			t.Errorf("Content-Security-Policy lacks %s: %s", want, csp)
		}
	}
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
		if !strings.Contains(csp, want) {
			t.Errorf("Content-Security-Policy lacks %s: %s", want, csp)
		}
	}
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
		"Access-Control-Allow-Origin": "",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if m := regexp.MustCompile(`(?i)<(img|iframe|form)|<script |\son[a-z]+="|style="|src=|(?-i:url\()|javascript:`).FindString(body); m != "" {
		t.Errorf("page has %s, which its policy forbids", m)
	}
}

func TestPageStaysBelow60KB(t *testing.T) {
	for _, lang := range []string{"en", "zh"} {
		info := busy(true)
		few := info.Live()
		info.Live = func() Live {
			l := few
			for range 200 {
				l.Pulls = append(l.Pulls, few.Pulls...)
				l.Problems = append(l.Problems, few.Problems...)
				l.Upstreams = append(l.Upstreams, few.Upstreams...)
				l.Budgets = append(l.Budgets, few.Budgets...)
			}
			return l
		}
		if _, body := get(t, info, "GET", "localhost:305", "/?lang="+lang); len(body) > 60_000 {
			t.Errorf("the page in %s has %d bytes", lang, len(body))
		}
	}
}

func TestHeadHasTheLengthAndNoBody(t *testing.T) {
	full, body := get(t, served, "GET", "localhost:305", "/")
	head, empty := get(t, served, "HEAD", "localhost:305", "/")
	if empty != "" || head.StatusCode != http.StatusOK {
		t.Fatalf("HEAD: status %d, %d bytes of body", head.StatusCode, len(empty))
	}
	if l := head.Header.Get("Content-Length"); l != full.Header.Get("Content-Length") || l != strconv.Itoa(len(body)) {
		t.Errorf("HEAD says %s bytes, GET gave %d", l, len(body))
	}
}

func TestOtherPathsAndMethodsAreRefused(t *testing.T) {
	for _, c := range []struct {
		method, target string
		want           int
	}{
		{"GET", "/index.html", http.StatusNotFound},
		{"GET", "/v2/", http.StatusNotFound},
		{"POST", "/?part=live", http.StatusMethodNotAllowed},
		{"POST", "/", http.StatusMethodNotAllowed},
		{"OPTIONS", "/", http.StatusMethodNotAllowed},
	} {
		resp, _ := get(t, served, c.method, "localhost:305", c.target)
		if resp.StatusCode != c.want {
			t.Errorf("%s %s: status %d, want %d", c.method, c.target, resp.StatusCode, c.want)
		}
		if c.want == http.StatusMethodNotAllowed && resp.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow is %q", c.method, c.target, resp.Header.Get("Allow"))
		}
	}
}
