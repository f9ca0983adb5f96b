package traps

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func untrustedClient(t *testing.T) *http.Client { return harness.ClientAs(t, harness.Untrusted) }

// credentialUses counts what went upstream with the daemon's login, or with a
// token that it bought.
func (r *rig) credentialUses() int {
	n := 0
	for _, q := range r.up.All() {
		a := q.Authorization()
		if strings.HasPrefix(a, "Basic ") || strings.HasPrefix(a, "Bearer token-of-"+user+"-") || strings.Contains(q.Body, password) {
			n++
		}
	}
	return n
}

func TestPeerWhoIsNotTrustedIsAnonymous(t *testing.T) {
	for _, scheme := range []string{"Bearer", "Basic"} {
		t.Run(scheme, func(t *testing.T) {
			o := withLogin(scheme)
			o.Auth.Private = []string{"team/"}
			r := start(t, o, nil)
			r.up.Add("open/app", "v1", image)
			untrusted := untrustedClient(t)
			// Before root, and after, when root's token is kept.
			for range 2 {
				r.up.Forget()
				r.whole("a public repository", r.DoWith(untrusted, "GET", "/v2/open/app/manifests/v1?ns="+name, nil), image.Bytes)
				for _, p := range []string{path("manifests/v1"), path("manifests/" + image.Digest.String()), blobPath(layer), path("tags/list")} {
					r.status(p, r.DoWith(untrusted, "GET", p, nil), 401)
				}
				if n := r.credentialUses(); n != 0 {
					t.Errorf("the daemon's credential was used %d times for an untrusted user", n)
				}
				r.pull()
			}
			if r.credentialUses() == 0 {
				t.Error("the daemon's credential was not used for root either")
			}
		})
	}
}

func TestDaemonThatTrustsNoUserUsesNoCredential(t *testing.T) {
	r := start(t, withLogin("Basic"), func(_ *quirky.Server, h *harness.Options) { h.TrustUIDs = []uint32{4000000} })
	r.status("a pull", r.Get(path("manifests/v1"), nil), 401)
	if n := r.credentialUses(); n != 0 {
		t.Errorf("the daemon's credential was used %d times", n)
	}
}

func TestDaemonOfAnOrdinaryUserKnowsItsPeers(t *testing.T) {
	harness.DialAs(t, harness.Untrusted) // needs root
	r := start(t, withLogin("Bearer"), func(_ *quirky.Server, h *harness.Options) { h.UID = harness.Untrusted - 1 })
	r.pull()
	r.up.Forget()
	r.status("nobody", r.DoWith(untrustedClient(t), "GET", path("manifests/v1"), nil), 401)
	if n := r.credentialUses(); n != 0 {
		t.Errorf("the daemon's credential was used %d times for an untrusted user", n)
	}
}

// A socket that its owner has closed shows uid 0 and inode 0.
func TestConnectWriteCloseIsNotTakenForRoot(t *testing.T) {
	r := start(t, withLogin("Bearer"), nil)
	dial := harness.DialAs(t, harness.Untrusted)
	for range 200 {
		c, err := dial(context.Background(), "tcp", r.Address())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path("manifests/v1"))
		c.Close()
	}
	// Connections are taken in order, so that these are among the last to be served
	// and those before them are under way or done.
	harness.Together(20, func(int) { r.status("nobody", r.DoWith(untrustedClient(t), "GET", path("manifests/v1"), nil), 401) })
	if n := r.credentialUses(); n != 0 {
		t.Errorf("the daemon's credential was used %d times for sockets that were closed at once", n)
	}
}

func TestWebPageIsRefusedBeforeRouting(t *testing.T) {
	r := start(t, withLogin("Bearer"), func(_ *quirky.Server, h *harness.Options) {
		h.Registries[0].Hosts = []string{"r.example.lan"}
	})
	for what, header := range map[string]http.Header{
		"Origin":              {"Origin": {"http://evil.test"}},
		"Origin null":         {"Origin": {"null"}},
		"Origin ours":         {"Origin": {r.URL()}},
		"Referer":             {"Referer": {"http://evil.test/page"}},
		"Sec-Fetch-Site":      {"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"no-cors"}},
		"Sec-Fetch same-site": {"Sec-Fetch-Site": {"same-site"}},
	} {
		for _, p := range []string{path("manifests/v1"), "/v2/", "/v2/auth?scope=repository:team/app:pull", "/v2/unknown.test/a/manifests/b"} {
			a := r.Get(p, header)
			r.status(what+" "+p, a, http.StatusForbidden)
			for h := range a.Header {
				if strings.HasPrefix(h, "Access-Control-") {
					t.Errorf("%s: %s", what, h)
				}
			}
		}
	}
	for _, evil := range []string{"evil.test", "evil.test:305", "192.0.2.1:305", "r.example.lan.evil.test", "localhost.evil.test", "127.0.0.1.evil.test"} {
		for _, p := range []string{path("manifests/v1"), "/v2/", "/v2/auth?scope=repository:team/app:pull"} {
			// 404 with the names that are served, as the worker has it, or a plain refusal.
			a := r.Get(p, http.Header{"Host": {evil}})
			if a.Status != http.StatusForbidden && a.Status != http.StatusNotFound {
				t.Errorf("Host %s: status %d", evil, a.Status)
			}
		}
	}
	a := r.Do("OPTIONS", path("manifests/v1"), http.Header{"Origin": {"http://evil.test"}, "Access-Control-Request-Method": {"GET"}})
	r.status("a preflight", a, http.StatusForbidden)
	if n := len(r.up.All()); n != 0 {
		t.Errorf("%d of these requests came to the upstream", n)
	}
	for _, host := range []string{"localhost", "localhost:305", "127.0.0.1", "127.0.0.1:9", "[::1]:305", "r.example.lan", "R.Example.LAN:80"} {
		r.whole("Host: "+host, r.Get("/v2/team/app/manifests/v1?ns="+name, http.Header{"Host": {host}}), image.Bytes)
	}
	r.whole("Sec-Fetch-Site: none", r.Get(path("manifests/v1"), http.Header{"Sec-Fetch-Site": {"none"}}), image.Bytes)
}

func TestPageAtSlashIsForOurOwnNames(t *testing.T) {
	r := start(t, quirky.Options{}, nil)
	r.status("our own name", r.Get("/", nil), 200)
	if a := r.Get("/", http.Header{"Host": {"evil.test"}}); a.Status != 403 && a.Status != 404 {
		t.Errorf("the page by another name: status %d", a.Status)
	}
}

func TestMalformedRequestsAreRefusedAndCutOff(t *testing.T) {
	t.Parallel() // it waits more than it works
	r := start(t, quirky.Options{}, nil)
	for what, text := range map[string]string{
		"absolute form":          "GET http://localhost/v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"absolute form, foreign": "GET http://evil.test/v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"CONNECT":                "CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n",
		"TRACE":                  "TRACE /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"percent":                "GET /v2/team%2fapp/manifests/v1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"dots":                   "GET /v2/../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"backslash":              "GET /v2/team\\app/manifests/v1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"folded header":          "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nAccept: a\r\n b\r\n\r\n",
		"two lengths":            "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"body on GET":            "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
		"chunked body on GET":    "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"no host":                "GET /v2/ HTTP/1.1\r\n\r\n",
		"HTTP/1.0, no host":      "GET /v2/ HTTP/1.0\r\n\r\n",
		"two hosts":              "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nHost: evil.test\r\n\r\n",
	} {
		t.Run(what, func(t *testing.T) {
			status, closed := raw(t, r.Address(), text)
			if status != 400 && status != 403 || !closed {
				t.Errorf("status %d, connection closed: %v; want 400 or 403 and closed", status, closed)
			}
		})
	}
	if n := len(r.up.All()); n != 0 {
		t.Errorf("%d of these requests came to the upstream", n)
	}
}

// raw sends text and says what status comes, and whether the connection is closed
// after it.
func raw(t *testing.T, address, text string) (status int, closed bool) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	answer, closed := readAll(c)
	if _, err := fmt.Sscanf(answer, "HTTP/1.%d %d", new(int), &status); err != nil {
		t.Errorf("answer %.100q", answer)
	}
	return status, closed
}
