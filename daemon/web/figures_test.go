package web

import (
	"strings"
	"testing"
	"time"
)

func TestSizesAndTimesAreShortAndDoNotRoundToTheNextUnit(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 9_949: "9.9 kB", 9_951: "10 kB", 999_499: "999 kB", 999_500: "1.0 MB",
		123_456_789: "123 MB", 5_200_000_000: "5.2 GB", 1<<63 - 1: "9.2 EB",
	} {
		if got := size(n); got != want {
			t.Errorf("%d bytes are %q, want %q", n, got, want)
		}
	}
	w := vocabulary[english]
	for d, want := range map[time.Duration]string{
		0: "1 s", 59 * time.Second: "59 s", 59*time.Minute + 59*time.Second: "59 min", time.Hour: "1 h", 3*time.Hour + 12*time.Minute: "3 h 12 min", 49 * time.Hour: "2 d",
	} {
		if got := w.span(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -4: "-4", -1234: "-1,234"} {
		if got := number(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestBarsStayInsideTheChart(t *testing.T) {
	const huge = 1 << 62
	bars := columns([]Traffic{{}, {Stored: 1, Fetched: huge - 1}, {Stored: huge - 1, Fetched: 1}, {Stored: -5}, {Stored: huge / 2}},
		func(t Traffic) (int64, int64) { return t.Stored, t.Fetched })
	for i, b := range bars {
		if b.Top < 0 || b.Top > b.Middle || b.Middle > 100 || b.Stored < 0 || b.Fetched < 0 {
			t.Errorf("bar %d is %+v", i, b)
		}
	}
	if bars[1].Stored == 0 || bars[2].Fetched == 0 {
		t.Error("a small part of a bar cannot be seen")
	}
	if bars[0].Stored+bars[0].Fetched != 0 {
		t.Error("there is a bar where nothing was sent")
	}
	if bars[4].Stored != 50 {
		t.Errorf("half of the most is %d high", bars[4].Stored)
	}
}

func TestPercentClaimsAllOrNothingOnlyWhenItIs(t *testing.T) {
	for _, c := range [][3]int64{{0, 0, 0}, {0, 5, 0}, {1, 1000, 1}, {999, 1000, 99}, {1000, 1000, 100}, {2, 3, 67}, {5, 0, 0}, {7, 5, 100}, {-1, 5, 0}} {
		if got := percent(c[0], c[1]); int64(got) != c[2] {
			t.Errorf("%d of %d are %d %%, want %d", c[0], c[1], got, c[2])
		}
	}
}

func TestPullShowsWhatMattersOfAnImagesName(t *testing.T) {
	for image, want := range map[string][2]string{
		"docker.io/library/redis:8":       {"docker.io/library/", "redis:8"},
		"docker.io/bitnami/redis:8":       {"docker.io/", "bitnami/redis:8"},
		"localhost:5000/a/b@sha256:00":    {"localhost:5000/", "a/b@sha256:00"},
		"registry.example/a":              {"registry.example/", "a"},
		"odd":                             {"", "odd"},
		"docker.io/library-of/images:1.2": {"docker.io/", "library-of/images:1.2"},
	} {
		r := newPullRow(Pull{Image: image}, time.Now(), vocabulary[english])
		if r.Registry != want[0] || r.Name != want[1] {
			t.Errorf("%s is split into %q and %q", image, r.Registry, r.Name)
		}
	}
}

func TestDockerHubsBudgetComesFirst(t *testing.T) {
	now := time.Now()
	l := Live{At: now, Budgets: []Budget{{Registry: "quay.io", Remaining: 1}, {Registry: "x", Remaining: 2}, {Registry: "docker.io", Remaining: 9, Limit: 100, Reset: now.Add(90 * time.Minute)}}}
	f := budgets(l, vocabulary[english])
	if len(f) != 2 || f[0].Title != "Docker Hub pulls left" || f[0].Big != "9" || !f[0].Low || f[0].Note != "of 100 · without a login · more in 1 h 30 min" {
		t.Errorf("%+v", f)
	}
}

func TestTitlesOfProblemsBeginWithTheirFirstLetter(t *testing.T) {
	for title, want := range map[string]string{
		"a disk is full": "A disk is full", "Docker is old": "Docker is old", "無法存取": "無法存取", "été": "Été", "9 disks": "9 disks",
	} {
		if got := newProblemRow(Problem{Code: "c", Title: title}, vocabulary[english]).Title; got != want {
			t.Errorf("%q is shown as %q, want %q", title, got, want)
		}
	}
	if got := newProblemRow(Problem{Code: "disk-full"}, words{"warning": "Warning"}).Title; got != "Disk-full" {
		t.Errorf("a problem without a title is shown as %q", got)
	}
}

func TestDownloadsUnderWayAreShownInBothLanguages(t *testing.T) {
	l := Live{Downloads: []Download{
		{Image: "docker.io/library/redis:7", Engine: "docker", From: "registry-1.docker.io", Sent: 12e6, Size: 48e6},
		{Image: "ghcr.io/a/b", Engine: "podman", Sent: 3e6},
	}}
	for lang, want := range map[language][2]string{
		english: {"docker · 12 MB of 48 MB · from registry-1.docker.io", "podman · 3.0 MB · from the cache"},
		chinese: {"docker · 12 MB / 48 MB · 来自 registry-1.docker.io", "podman · 3.0 MB · 来自缓存"},
	} {
		rows := newLiveView(l, true, vocabulary[lang]).Downloads
		for i, w := range want {
			r := rows[i]
			if got := r.Engine + " · " + r.Progress + " · " + r.Source; !strings.EqualFold(got, w) {
				t.Errorf("%v: %q, want %q", lang, got, w)
			}
		}
		if rows[0].Registry != "docker.io/library/" || rows[0].Name != "redis:7" || rows[0].Share != 25 || rows[1].Share != -1 {
			t.Errorf("%v: %+v", lang, rows)
		}
	}
	if c := coarse(l, nil); len(c.Downloads) != 0 {
		t.Errorf("other users see %+v", c.Downloads)
	}
}
