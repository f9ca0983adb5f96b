package proxy

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestWarningsOfSidemirrorsOwnReachTrustedCallersAlone(t *testing.T) {
	t.Parallel()
	notices := func(registry string) []string {
		if registry != "docker.io" {
			return nil
		}
		return slices.Repeat([]string{"the login \"x\" was refused: café\r\n"}, 3*maxOwnWarnings)
	}
	path := "/v2/library/a/manifests/" + digest.FromString(aManifest).String()
	g := newRig(t, func(c *Config) { c.Notices = notices }, manifestHandler)
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		got := g.do(t, method, path).Header.Values("Warning")
		if len(got) != maxOwnWarnings || got[0] != `299 - "sidemirror: the login \"x\" was refused: caf?  "` {
			t.Errorf("%s: %q", method, got)
		}
	}
	if passed := readWarnings(http.Header{"Warning": g.do(t, http.MethodGet, path).Header.Values("Warning")}); strings.Count(passed, "\n") != maxOwnWarnings-1 {
		t.Errorf("another sidemirror reads %q", passed)
	}
	untrusted := newRig(t, func(c *Config) { c.Notices, c.Trust = notices, nil }, manifestHandler)
	if got := untrusted.do(t, http.MethodGet, path).Header.Values("Warning"); len(got) != 0 {
		t.Errorf("an untrusted caller gets %q", got)
	}
	other := newRig(t, func(c *Config) { c.Notices = func(string) []string { return nil } }, manifestHandler)
	if got := other.do(t, http.MethodGet, path).Header.Values("Warning"); len(got) != 0 {
		t.Errorf("without a notice %q", got)
	}
}

func TestAWarningIsBounded(t *testing.T) {
	for _, text := range []string{strings.Repeat("a", 1<<20), strings.Repeat(`\`, 1<<20), strings.Repeat("é", 1<<20)} {
		w := ownWarning(text)
		if len(w) > maxOwnWarning+10 || !warning299.MatchString(w) || warning299.FindString(w) != w {
			t.Errorf("%d bytes: %s", len(w), w)
		}
	}
}

func TestAManifestThatMayBeOldSaysSo(t *testing.T) {
	t.Parallel()
	var away atomic.Bool
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		manifestHandler(w, r)
	}))
	t.Cleanup(up.Close)
	p := storing(t, up.URL, func(c *Config) { c.Freshness.MaxStale = 1 << 50 })
	ask := func() []string {
		r := httptest.NewRequest(http.MethodGet, "/v2/library/a/manifests/v1", nil)
		r.Host = "localhost"
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Fatalf("%d: %s", w.Code, w.Body)
		}
		return w.Header().Values("Warning")
	}
	if got := ask(); len(got) != 0 {
		t.Errorf("of a fresh one it says %q", got)
	}
	away.Store(true)
	want := []string{staleWarning, `299 - "sidemirror: this may not be the latest docker.io/library/a:v1, because the registry cannot be asked at the moment"`}
	if got := ask(); !slices.Equal(got, want) {
		t.Errorf("of a stale one it says %q", got)
	}
}
