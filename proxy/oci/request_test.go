package oci

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// served is the set of registries of the tests.
type served struct{}

func (served) Serves(name string) bool {
	switch name {
	case "docker.io", "ghcr.io", "registry.k8s.io", "registry.corp.example:5000", "[::1]:5000", "127.0.0.1:5000", "localhost", "localhost:5000":
		return true
	}
	return false
}

func (served) ByHost(host string) (string, bool) {
	return "ghcr.io", host == "ghcr.example.lan"
}

func (served) Default() string { return "docker.io" }

const (
	someDigest = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
	longDigest = "sha512:f7fbba6e0636f890e56fbbf3283e524c6fa3204ae298382d624741d0dc6638326e282c41be5e4254d8820772c5518a2c5a8c0c7f7eda19594a7eb539453e1ed7"
)

func request(t testing.TB, method, host, target string) *http.Request {
	t.Helper()
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Request{Method: method, Host: host, URL: u, RequestURI: target}
}

func TestEveryFormNamesItsRegistry(t *testing.T) {
	for _, tt := range []struct {
		name, host, target string
		want               Request
	}{
		{"namespace", "127.0.0.1:305", "/v2/o/i/manifests/v1?ns=ghcr.io",
			Request{Kind: Manifest, Form: ByNamespace, Registry: "ghcr.io", Repository: "o/i", Tag: "v1"}},
		{"namespace of k8s with two components (hubproxy#92)", "127.0.0.1:305", "/v2/coredns/coredns/manifests/v1?ns=registry.k8s.io",
			Request{Kind: Manifest, Form: ByNamespace, Registry: "registry.k8s.io", Repository: "coredns/coredns", Tag: "v1"}},
		{"namespace with a port (kuik#191)", "127.0.0.1:305", "/v2/x/blobs/" + someDigest + "?ns=registry.corp.example:5000",
			Request{Kind: Blob, Form: ByNamespace, Registry: "registry.corp.example:5000", Repository: "x", Digest: someDigest}},
		{"namespace in IPv6 (kuik#191)", "127.0.0.1:305", "/v2/x/tags/list?ns=%5B%3A%3A1%5D:5000",
			Request{Kind: Tags, Form: ByNamespace, Registry: "[::1]:5000", Repository: "x"}},
		{"namespace and prefix at once (BuildKit)", "127.0.0.1:305", "/v2/ghcr.io/o/i/manifests/v1?ns=ghcr.io",
			Request{Kind: Manifest, Form: ByNamespace, Registry: "ghcr.io", Repository: "o/i", Tag: "v1", Prefixed: true}},
		{"a repository that looks like another registry", "127.0.0.1:305", "/v2/docker.io/library/x/manifests/v1?ns=ghcr.io",
			Request{Kind: Manifest, Form: ByNamespace, Registry: "ghcr.io", Repository: "docker.io/library/x", Tag: "v1"}},
		{"prefix", "localhost:305", "/v2/ghcr.io/o/i/manifests/v1",
			Request{Kind: Manifest, Form: ByPrefix, Registry: "ghcr.io", Repository: "o/i", Tag: "v1", Prefixed: true}},
		{"prefix with a port", "localhost:305", "/v2/registry.corp.example:5000/x/manifests/v1",
			Request{Kind: Manifest, Form: ByPrefix, Registry: "registry.corp.example:5000", Repository: "x", Tag: "v1", Prefixed: true}},
		{"prefix with a port for podman", "127.0.0.1:305", "/v2/registry.corp.example__5000/x/manifests/v1",
			Request{Kind: Manifest, Form: ByPrefix, Registry: "registry.corp.example:5000", Repository: "x", Tag: "v1", Prefixed: true}},
		{"prefix localhost with a port for podman", "127.0.0.1:305", "/v2/localhost__5000/x/manifests/v1",
			Request{Kind: Manifest, Form: ByPrefix, Registry: "localhost:5000", Repository: "x", Tag: "v1", Prefixed: true}},
		{"a repository with underscores", "127.0.0.1:305", "/v2/team__5000/x/manifests/v1",
			Request{Kind: Manifest, Form: ByDefault, Registry: "docker.io", Repository: "team__5000/x", Tag: "v1"}},
		{"prefix in IPv6", "localhost:305", "/v2/[::1]:5000/x/manifests/v1",
			Request{Kind: Manifest, Form: ByPrefix, Registry: "[::1]:5000", Repository: "x", Tag: "v1", Prefixed: true}},
		{"prefix localhost", "localhost:305", "/v2/localhost/x/manifests/v1",
			Request{Kind: Manifest, Form: ByPrefix, Registry: "localhost", Repository: "x", Tag: "v1", Prefixed: true}},
		{"host", "GHCR.example.lan:305", "/v2/o/i/manifests/v1",
			Request{Kind: Manifest, Form: ByHost, Registry: "ghcr.io", Repository: "o/i", Tag: "v1"}},
		{"default", "127.0.0.1:305", "/v2/library/alpine/manifests/3.20",
			Request{Kind: Manifest, Form: ByDefault, Registry: "docker.io", Repository: "library/alpine", Tag: "3.20"}},
		{"tag and digest: the digest says which", "h", "/v2/library/a/manifests/v1@" + someDigest,
			Request{Kind: Manifest, Form: ByDefault, Registry: "docker.io", Repository: "library/a", Digest: someDigest}},
		{"sha512", "h", "/v2/library/a/manifests/" + longDigest,
			Request{Kind: Manifest, Form: ByDefault, Registry: "docker.io", Repository: "library/a", Digest: longDigest}},
		{"referrers", "h", "/v2/library/a/referrers/" + someDigest,
			Request{Kind: Referrers, Form: ByDefault, Registry: "docker.io", Repository: "library/a", Digest: someDigest}},
		{"a repository called tags", "h", "/v2/library/tags/tags/list",
			Request{Kind: Tags, Form: ByDefault, Registry: "docker.io", Repository: "library/tags"}},
		{"a repository called manifests/blobs", "h", "/v2/manifests/blobs/manifests/blobs",
			Request{Kind: Manifest, Form: ByDefault, Registry: "docker.io", Repository: "manifests/blobs", Tag: "blobs"}},
		{"a tag with two dots", "h", "/v2/library/a/manifests/v1..2",
			Request{Kind: Manifest, Form: ByDefault, Registry: "docker.io", Repository: "library/a", Tag: "v1..2"}},
		// Some URL libraries escape these.
		{"a digest's colon escaped", "h", "/v2/library/a/blobs/" + strings.Replace(someDigest, ":", "%3A", 1),
			Request{Kind: Blob, Form: ByDefault, Registry: "docker.io", Repository: "library/a", Digest: someDigest}},
		{"the same in lower case", "h", "/v2/library/a/manifests/" + strings.Replace(someDigest, ":", "%3a", 1),
			Request{Kind: Manifest, Form: ByDefault, Registry: "docker.io", Repository: "library/a", Digest: someDigest}},
		{"tag and digest escaped", "h", "/v2/library/a/manifests/v1%40" + strings.Replace(someDigest, ":", "%3A", 1),
			Request{Kind: Manifest, Form: ByDefault, Registry: "docker.io", Repository: "library/a", Digest: someDigest}},
		{"a prefix with its port escaped", "h", "/v2/registry.corp.example%3A5000/x/manifests/v1",
			Request{Kind: Manifest, Form: ByPrefix, Registry: "registry.corp.example:5000", Repository: "x", Tag: "v1", Prefixed: true}},
		{"a prefix in IPv6 escaped", "h", "/v2/%5B%3A%3A1%5D%3A5000/x/manifests/v1",
			Request{Kind: Manifest, Form: ByPrefix, Registry: "[::1]:5000", Repository: "x", Tag: "v1", Prefixed: true}},
		{"base", "h", "/v2/", Request{Kind: Base, Form: ByDefault, Registry: "docker.io"}},
		{"base without its slash", "h", "/v2", Request{Kind: Base, Form: ByDefault, Registry: "docker.io"}},
		{"token", "ghcr.example.lan", "/v2/auth?service=x", Request{Kind: Token, Form: ByHost, Registry: "ghcr.io"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseRequest(request(t, http.MethodGet, tt.host, tt.target), served{})
			if err != nil {
				t.Fatal(err)
			}
			got.Query = nil
			if !equal(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func equal(a, b Request) bool {
	return a.Kind == b.Kind && a.Form == b.Form && a.Registry == b.Registry && a.Repository == b.Repository &&
		a.Tag == b.Tag && a.Digest == b.Digest && a.Prefixed == b.Prefixed
}

func TestQueryGoesOnWithoutNamespace(t *testing.T) {
	got, err := ParseRequest(request(t, http.MethodGet, "h", "/v2/library/a/tags/list?n=5&last=v%2B1&ns=docker.io"), served{})
	if err != nil {
		t.Fatal(err)
	}
	if want := "last=v%2B1&n=5"; got.Query.Encode() != want {
		t.Errorf("query %q, want %q", got.Query.Encode(), want)
	}
}

func TestRefusedRequests(t *testing.T) {
	long := strings.Repeat("a", 256)
	for _, tt := range []struct {
		name, method, target string
		code                 Code
		status               int
	}{
		{"namespace twice", "GET", "/v2/a/b/tags/list?ns=ghcr.io&ns=ghcr.io", BadRequest, 400},
		{"namespace malformed", "GET", "/v2/a/b/tags/list?ns=..%2Fx", BadRequest, 400},
		{"namespace empty", "GET", "/v2/a/b/tags/list?ns=", BadRequest, 400},
		{"namespace with userinfo", "GET", "/v2/a/b/tags/list?ns=u:p%40ghcr.io", BadRequest, 400},
		{"namespace unknown", "GET", "/v2/a/b/tags/list?ns=evil.example", RegistryUnknown, 404},
		{"namespace in other case", "GET", "/v2/a/b/tags/list?ns=GHCR.io", RegistryUnknown, 404},
		{"query malformed", "GET", "/v2/a/b/tags/list?n=%zz", BadRequest, 400},
		{"query with semicolons", "GET", "/v2/a/b/tags/list?n=1;ns=ghcr.io", BadRequest, 400},
		{"prefix unknown", "GET", "/v2/evil.example/b/tags/list", RegistryUnknown, 404},
		{"encoded slash", "GET", "/v2/a%2Fb/tags/list", BadRequest, 400},
		{"encoded letter", "GET", "/v2/%61/b/tags/list", BadRequest, 400},
		{"encoded percent", "GET", "/v2/a/b/blobs/sha256%253A00", BadRequest, 400},
		{"encoded backslash", "GET", "/v2/a%5cb/tags/list", BadRequest, 400},
		{"encoded nothing", "GET", "/v2/a%00/b/tags/list", BadRequest, 400},
		{"backslash", "GET", `/v2/a\b/tags/list`, BadRequest, 400},
		{"dots", "GET", "/v2/a/../b/tags/list", BadRequest, 400},
		{"encoded dots", "GET", "/v2/a/%2e%2e/b/tags/list", BadRequest, 400},
		{"whole URL", "GET", "http://evil.example/v2/a/b/tags/list", BadRequest, 400},
		{"TRACE", "TRACE", "/v2/", BadRequest, 400},
		{"upper case", "GET", "/v2/A/b/tags/list", NameInvalid, 400},
		{"empty component", "GET", "/v2/a//b/tags/list", NameInvalid, 400},
		{"long name", "GET", "/v2/" + long + "/tags/list", NameInvalid, 400},
		{"tag with a space", "GET", "/v2/a/b/manifests/+", ManifestInvalid, 400},
		{"long tag", "GET", "/v2/a/b/manifests/" + long[:129], ManifestInvalid, 400},
		{"short digest", "GET", "/v2/a/b/blobs/sha256:abc", DigestInvalid, 400},
		{"upper-case digest", "GET", "/v2/a/b/blobs/" + strings.Replace(someDigest, "2c26", "2C26", 1), DigestInvalid, 400},
		{"unknown algorithm", "GET", "/v2/a/b/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", DigestInvalid, 400},
		{"blob by tag", "GET", "/v2/a/b/blobs/latest", DigestInvalid, 400},
		{"catalog", "GET", "/v2/_catalog", Unsupported, 405},
		{"upload", "POST", "/v2/a/b/blobs/uploads/", Unsupported, 405},
		{"upload status", "GET", "/v2/a/b/blobs/uploads/123", Unsupported, 405},
		{"put", "PUT", "/v2/a/b/manifests/v1", Unsupported, 405},
		{"patch", "PATCH", "/v2/a/b/blobs/uploads/1", Unsupported, 405},
		{"delete", "DELETE", "/v2/a/b/manifests/v1", Unsupported, 405},
		{"post to base", "POST", "/v2/", Unsupported, 405},
		{"put to auth", "PUT", "/v2/auth", Unsupported, 405},
		{"other list", "GET", "/v2/a/b/tags/all", NotFound, 404},
		{"nothing", "GET", "/v2/a", NotFound, 404},
		{"version 1", "GET", "/v1/_ping", NotFound, 404},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseRequest(request(t, tt.method, "127.0.0.1:305", tt.target), served{})
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %+v, %v", got, err)
			}
			if e.Code != tt.code || e.HTTPStatus() != tt.status {
				t.Errorf("%s %d (%s), want %s %d", e.Code, e.HTTPStatus(), e.Message, tt.code, tt.status)
			}
		})
	}
}

func TestCompleteIsForDockerHubAlone(t *testing.T) {
	for _, tt := range [][3]string{
		{"docker.io", "busybox", "library/busybox"},
		{"docker.io", "library/busybox", "library/busybox"},
		{"docker.io", "", ""},
		{"ghcr.io", "busybox", "busybox"},
	} {
		if got := Complete(tt[0], tt[1]); got != tt[2] {
			t.Errorf("Complete(%q, %q) = %q, want %q", tt[0], tt[1], got, tt[2])
		}
	}
}

func TestErrorBodyIsTheSpecifications(t *testing.T) {
	w := httptest.NewRecorder()
	WriteError(w, &Error{Code: RegistryUnknown, Message: "no", Routes: map[string]string{"a": "b"}, Err: errors.New("hidden")})
	if got, want := w.Body.String(), `{"errors":[{"code":"NAME_UNKNOWN","message":"no"}],"routes":{"a":"b"}}`+"\n"; got != want {
		t.Errorf("body %s, want %s", got, want)
	}
	if w.Code != 404 || !strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

func TestOtherErrorsGiveNothingAway(t *testing.T) {
	w := httptest.NewRecorder()
	WriteError(w, errors.New("dial secret.internal: canary"))
	if w.Code != http.StatusBadGateway || strings.Contains(w.Body.String(), "canary") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// FuzzParseRequest: whatever is asked, what comes out obeys the grammars and means
// the same when it is asked again.
func FuzzParseRequest(f *testing.F) {
	for _, target := range []string{
		"/v2/", "/v2/auth?scope=repository:a:pull", "/v2/a/b/manifests/v1?ns=ghcr.io", "/v2/ghcr.io/o/i/blobs/" + someDigest,
		"/v2/[::1]:5000/x/tags/list?n=1&last=b", "/v2/a/b/referrers/" + longDigest + "?artifactType=x", "/v2/a/../b/tags/list",
	} {
		f.Add("GET", "127.0.0.1:305", target)
	}
	f.Fuzz(func(t *testing.T, method, host, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		req, err := ParseRequest(&http.Request{Method: method, Host: host, URL: u}, served{})
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.HTTPStatus() < 400 || e.Message == "" {
				t.Fatalf("an error without a status or a message: %#v", err)
			}
			return
		}
		if !ValidRegistry(req.Registry) || req.Kind.String() == "unknown" {
			t.Fatalf("%+v", req)
		}
		if req.Kind != Base && req.Kind != Token && !ValidRepository(req.Repository) {
			t.Fatalf("repository %q", req.Repository)
		}
		if req.Digest != "" && req.Digest.Validate() != nil || req.Tag != "" && !writtenTag.MatchString(req.Tag) {
			t.Fatalf("%+v", req)
		}
		if _, ok := req.Query["ns"]; ok {
			t.Fatal("ns would go upstream")
		}
		local, err := url.ParseRequestURI(req.LocalPath())
		if err != nil {
			t.Fatal(err)
		}
		if req.Form == ByNamespace {
			local.RawQuery = url.Values{"ns": {req.Registry}}.Encode()
		}
		again, err := ParseRequest(&http.Request{Method: method, Host: host, URL: local}, served{})
		if err != nil || !equal(req, again) {
			t.Fatalf("%s means %+v and then %+v, %v", target, req, again, err)
		}
	})
}
