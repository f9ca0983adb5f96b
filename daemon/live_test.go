package daemon

import (
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/activity"
	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/health"
	"github.com/sidemirror/sidemirror/daemon/web"
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
