package daemon

import (
	"io"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sidemirror/sidemirror/daemon/activity"
	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/health"
	"github.com/sidemirror/sidemirror/daemon/web"
	"github.com/sidemirror/sidemirror/proxy/observe"
)

func TestChartsEndWithTheLastMinute(t *testing.T) {
	minutes := []activity.Traffic{
		{Requests: 1}, {Requests: 2, Hits: 1}, {Requests: 4, Hits: 4, Bytes: activity.Bytes{Cache: 10, Upstream: 20, Prefetch: 5}},
	}
	got := trafficOf(minutes)
	want := []web.Traffic{{Requests: 1}, {Requests: 6, Hits: 5, Stored: 10, Fetched: 25}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if len(trafficOf(make([]activity.Traffic, 60))) != 30 {
		t.Error("an hour is not 30 slices")
	}
}

func TestUpstreamIsShownUnderTheNameOfItsRegistry(t *testing.T) {
	c := config.Default()
	for upstream, want := range map[string]string{"registry-1.docker.io": "docker.io", "ghcr.io": "ghcr.io", "registry.corp.example:5000": "registry.corp.example:5000"} {
		if got := registryOf(c, upstream); got != want {
			t.Errorf("%s has the content of %s, want %s", upstream, got, want)
		}
	}
}

func TestEveryKindOfProblemHasAChineseTitle(t *testing.T) {
	for _, kind := range health.Kinds() {
		page := web.Handler(web.Info{Live: func() web.Live {
			return web.Live{Problems: []web.Problem{{Code: string(kind.Code), Title: "TITLE"}}}
		}})
		w := httptest.NewRecorder()
		page.ServeHTTP(w, httptest.NewRequest("GET", "/?part=live&lang=zh", nil))
		if body := w.Body.String(); !strings.Contains(body, string(kind.Code)) || strings.Contains(body, "TITLE") {
			t.Errorf("%s has no Chinese title: add it to daemon/web/words.go", kind.Code)
		} else if strings.ContainsRune(body, utf8.RuneError) {
			t.Errorf("the Chinese title of %s has a letter that was cut in two", kind.Code)
		}
	}
}

func TestDownloadsOfOneImageAreShownAsOne(t *testing.T) {
	size := func(n int64) *int64 { return &n }
	got := downloadsShown([]activity.Download{
		{Image: "a", Engine: "docker", From: "r", Sent: 1, Size: size(10)},
		{Image: "a", Engine: "docker", From: "r", Sent: 2, Size: size(20)},
		{Image: "a", Engine: "docker", Sent: 4},
		{Image: "a", Engine: "docker", Sent: 8, Size: size(20)},
		{Image: "a", Engine: "podman", From: "r", Sent: 3, Size: size(30)},
	})
	want := []web.Download{
		{Image: "a", Engine: "docker", From: "r", Sent: 3, Size: 30}, {Image: "a", Engine: "docker", Sent: 12}, {Image: "a", Engine: "podman", From: "r", Sent: 3, Size: 30},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestTheRegistryWithAUsedUpLimitHasANotice(t *testing.T) {
	d := newDaemon(config.Source{}, io.Discard)
	d.handler.swap(newGeneration(t.Context(), refusal{}))
	now := time.Now()
	d.activity.RateLimited(observe.RateLimit{Registry: "docker.io", Upstream: "registry-1.docker.io", Identity: "anonymous", Limit: 100, Seen: now})
	d.activity.RateLimited(observe.RateLimit{Registry: "ghcr.io", Upstream: "ghcr.io", Identity: "client", Limit: 100, Seen: now})
	d.activity.RateLimited(observe.RateLimit{Registry: "quay.io", Upstream: "quay.io", Identity: "login", Limit: 100, Remaining: 1, Seen: now})
	d.setNotices(now)
	if got := d.noticesFor("docker.io"); len(got) != 1 || !strings.Contains(got[0], "no more requests") || !strings.Contains(got[0], "hint: ") {
		t.Errorf("of docker.io: %q", got)
	}
	if a, b := d.noticesFor("ghcr.io"), d.noticesFor("quay.io"); len(a)+len(b) != 0 {
		t.Errorf("of others: %q, %q", a, b)
	}
	d.setNotices(now.Add(24 * time.Hour))
	if got := d.noticesFor("docker.io"); len(got) != 0 {
		t.Errorf("a day later: %q", got)
	}
}
