package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestWarningsForThePersonArePassedOnAndOthersAreNot(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		values []string
		want   string
	}{
		{"none", nil, ""},
		{"one", []string{`299 - "old"`}, `299 - "old"`},
		{"two in two headers", []string{`299 - "a"`, `299 - "b"`}, "299 - \"a\"\n299 - \"b\""},
		{"two in one header", []string{`299 - "a, b", 299 registry.example:5000 "c"`}, "299 - \"a, b\"\n299 registry.example:5000 \"c\""},
		{"quoted pairs", []string{`299 - "say \"no\""`}, `299 - "say \"no\""`},
		{"of caches", []string{`110 - "Response is Stale", 199 - "x", 214 - "y"`}, ""},
		{"unterminated", []string{`299 - "a`}, ""},
		{"control characters", []string{"299 - \"a\x1b[31m\""}, ""},
		{"too long", []string{`299 - "` + strings.Repeat("a", maxWarning) + `"`}, ""},
		{"too many", []string{`299 - "` + strings.Repeat("a", maxWarning/2) + `"`, `299 - "` + strings.Repeat("b", maxWarning) + `"`, `299 - "` + strings.Repeat("c", maxWarning/2) + `"`},
			`299 - "` + strings.Repeat("a", maxWarning/2) + `"`},
	} {
		if got := readWarnings(http.Header{"Warning": tt.values}); got != tt.want {
			t.Errorf("%s: %.80q, want %.80q", tt.name, got, tt.want)
		}
	}
}

func TestEveryLinkOfAListLeadsHere(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		links []string
		want  string
	}{
		"one":          {[]string{`</v2/library/a/tags/list?n=2&last=b>; rel="next"`}, `</v2/library/a/tags/list?last=b&n=2>; rel="next"`},
		"whole URLs":   {[]string{`<https://r.example/v2/library/a/tags/list?last=b>; rel="next"`}, `</v2/library/a/tags/list?last=b>; rel="next"`},
		"two in one":   {[]string{`</v2/library/a/tags/list?last=a>; rel="prev", </v2/library/a/tags/list?last=b>; rel="next"`}, `</v2/library/a/tags/list?last=a>; rel="prev", </v2/library/a/tags/list?last=b>; rel="next"`},
		"two headers":  {[]string{`</v2/library/a/tags/list>; rel="first"`, `</v2/library/a/tags/list?last=b>; rel="next"`}, `</v2/library/a/tags/list>; rel="first", </v2/library/a/tags/list?last=b>; rel="next"`},
		"commas":       {[]string{`</v2/library/a/tags/list?last=a,b>; title="x, y"; rel="next", </v2/library/a/tags/list>; rel="first"`}, `</v2/library/a/tags/list?last=a%2Cb>; title="x, y"; rel="next", </v2/library/a/tags/list>; rel="first"`},
		"a base path":  {[]string{`</proxy/v2/other/a/tags/list?last=b>; rel="next"`}, `</v2/library/a/tags/list?last=b>; rel="next"`},
		"query alone":  {[]string{`<?last=b>; rel="next"`}, `</v2/library/a/tags/list?last=b>; rel="next"`},
		"ns":           {[]string{`</v2/library/a/tags/list?last=b&ns=evil.example>; rel="next"`}, `</v2/library/a/tags/list?last=b>; rel="next"`},
		"elsewhere":    {[]string{`<https://evil.example/page>; rel="next", </v2/library/a/tags/list>; rel="first"`}, `</v2/library/a/tags/list>; rel="first"`},
		"malformed":    {[]string{`/v2/library/a/tags/list; rel="next"`, `</v2/library/a/tags/list`}, ""},
		"unterminated": {[]string{`</v2/library/a/tags/list>; rel="next`}, `</v2/library/a/tags/list>; rel="next`},
	} {
		g := newRig(t, nil, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Link"] = tt.links
			fmt.Fprint(w, `{"name":"library/a","tags":[]}`)
		})
		if a := g.do(t, "GET", "/v2/library/a/tags/list"); a.StatusCode != 200 || a.Header.Get("Link") != tt.want {
			t.Errorf("%s: %d, %s, want %s", name, a.StatusCode, a.Header.Get("Link"), tt.want)
		}
	}
}

func TestWhatTheUpstreamCallsAManifestPasses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		contentType, body string
		withDigest, want  bool
	}{
		"an artifact of OCI":             {"application/vnd.oci.artifact.manifest.v1+json", `{"blobs":[]}`, false, true},
		"an artifact of ORAS":            {"application/vnd.cncf.oras.artifact.manifest.v1+json; charset=utf-8", `{"mediaType":"x"}`, true, true},
		"a kind of tomorrow":             {"application/vnd.example+json", `{"schemaVersion":3}`, false, true},
		"a mediaType of another kind":    {"application/vnd.example+json", `{"mediaType":7}`, false, true},
		"plain JSON with its digest":     {"application/json", `{"x":1}`, true, true},
		"plain JSON without":             {"application/json", `{"x":1}`, false, false},
		"schemaVersion 1 of an artifact": {"application/vnd.example+json", `{"schemaVersion":1}`, true, true},
		"schema 1":                       {"application/vnd.docker.distribution.manifest.v1+json", `{"schemaVersion":1,"fsLayers":[]}`, true, false},
		"schema 1 by its content":        {"application/json", `{"schemaVersion":1,"fsLayers":[]}`, true, false},
		"an error":                       {"application/vnd.oci.image.manifest.v1+json", `{"errors":[]}`, true, false},
		"a list":                         {"application/vnd.oci.image.manifest.v1+json", `[]`, true, false},
		"a page":                         {"text/html", `<html>`, true, false},
		"no JSON":                        {"application/vnd.example+json", `{`, true, false},
	} {
		g := newRig(t, nil, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", tt.contentType)
			if tt.withDigest {
				w.Header().Set("Docker-Content-Digest", digest.FromString(tt.body).String())
			}
			fmt.Fprint(w, tt.body)
		})
		a := g.do(t, "GET", "/v2/library/a/manifests/v1")
		if tt.want && (a.StatusCode != 200 || string(a.body) != tt.body || a.Header.Get("Content-Type") != tt.contentType) || !tt.want && a.StatusCode != 502 {
			t.Errorf("%s: %d, %s, %s", name, a.StatusCode, a.Header.Get("Content-Type"), a.body)
		}
	}
}

func TestAnUpstreamsOwnErrorsReachTheClient(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		path       string
		status     int
		body, want string
		wantStatus int
	}{
		{"/v2/library/a/manifests/v1", 404, `{"errors":[{"code":"NAME_UNKNOWN","message":"gone"}]}`, `"code":"NAME_UNKNOWN","message":"gone"`, 404},
		{"/v2/library/a/manifests/v1", 404, `no such page`, `"code":"MANIFEST_UNKNOWN"`, 404},
		{"/v2/library/a/blobs/" + fooDigest.String(), 404, ``, `"code":"BLOB_UNKNOWN"`, 404},
		{"/v2/library/a/tags/list", 404, ``, `"code":"NAME_UNKNOWN"`, 404},
		{"/v2/library/a/manifests/v1", 403, `{"errors":[{"code":"DENIED","message":"no","detail":[{"x":1}]}]}`, `"message":"no","detail":[{"x":1}]`, 403},
		{"/v2/library/a/manifests/v1", 401, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}`, `who are you`, 401},
		{"/v2/library/a/manifests/v1", 500, `{"errors":[{"code":"UNKNOWN","message":"disk full"}]}`, `disk full`, 502},
		{"/v2/library/a/manifests/v1", 429, `{"errors":[{"code":"TOOMANYREQUESTS","message":"increase the limit"}]}`, `increase the limit`, 502},
		// An engine that falls back to the registry gets no status that it would dwell on.
		{"/v2/library/a/manifests/v1", 451, `not in your country`, `answered 451: not in your country`, 502},
		{"/v2/docker.io/library/a/manifests/v1", 451, `not in your country`, `answered 451: not in your country`, 451},
		{"/v2/docker.io/library/a/manifests/v1", 409, `{"message":"locked"}`, `answered 409: locked`, 409},
		{"/v2/docker.io/library/a/manifests/v1", 429, `slow down`, `slow down`, 429},
	} {
		g := newRig(t, nil, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(tt.status)
			fmt.Fprint(w, tt.body)
		})
		if a := g.do(t, "GET", tt.path); a.StatusCode != tt.wantStatus || !strings.Contains(string(a.body), tt.want) {
			t.Errorf("%d %s: %d %s, want %d with %s", tt.status, tt.body, a.StatusCode, a.body, tt.wantStatus, tt.want)
		}
	}
}

func TestADigestWhoseColonIsEscapedIsServed(t *testing.T) {
	t.Parallel()
	g := newRig(t, nil, manifestHandler)
	escaped := strings.Replace(digest.FromString(aManifest).String(), ":", "%3A", 1)
	if a := g.do(t, "GET", "/v2/library/a/manifests/"+escaped); a.StatusCode != 200 || string(a.body) != aManifest {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}
