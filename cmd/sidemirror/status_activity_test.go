package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/daemon/activity"
	"github.com/sidemirror/sidemirror/daemon/admin"
	"github.com/sidemirror/sidemirror/daemon/health"
	"github.com/sidemirror/sidemirror/daemon/state"
	"github.com/sidemirror/sidemirror/internal/problem"
)

var statusNow = time.Date(2026, 3, 4, 15, 0, 0, 0, time.Local)

// reporting is a daemon whose report a test knows.
type reporting struct{}

func (reporting) Diagnose(context.Context, string) ([]admin.Diagnosis, error) { return nil, nil }
func (reporting) Ready() string                                               { return "" }

func (reporting) Status(time.Time) admin.Status {
	return admin.Status{
		Cache: &admin.Cache{Bytes: new(int64(3 << 30)), MaxSize: 20 << 30}, Logins: []state.Login{{Host: "ghcr.io", Source: "store"}},
		Problems: []health.Problem{
			{Problem: &problem.Problem{Code: "login-refused", Text: "a"}, Severity: health.Error},
			{Problem: &problem.Problem{Code: "upstream-unreachable", Text: "b"}, Severity: health.Warning},
		},
	}
}

func (reporting) Activity(time.Time) activity.Activity {
	return activity.Activity{
		Day:     activity.Traffic{Requests: 200, Hits: 150, Bytes: activity.Bytes{Cache: 2 << 20}},
		Engines: []activity.Engine{{Name: "docker", Last: statusNow.Add(-5 * time.Minute)}, {Name: "containerd", Last: statusNow.Add(-48 * time.Hour)}},
		Upstreams: []activity.Upstream{
			{Name: "ghcr.io", Reachable: true}, {Name: "quay.io"}, {Name: "registry-1.docker.io", Reachable: true},
		},
		RateLimits: []activity.RateLimit{
			{Registry: "docker.io", Identity: "anonymous", Limit: new(int64(100)), Remaining: 76, Window: 21600},
			{Registry: "gitlab.test", Identity: "login", Remaining: 0, Reset: new(statusNow.Add(15 * time.Minute))},
		},
	}
}

func TestStatusAsksTheRunningDaemon(t *testing.T) {
	folder := t.TempDir()
	s, err := admin.Serve(folder, reporting{}, http.NotFoundHandler())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := readDaemon(t.Context(), admin.Client{Socket: folder + "/admin.sock"})
	if len(r.Problems) != 1 || r.Problems[0].Code != "login-refused" || len(r.Notes) != 1 || r.Notes[0].Code != "upstream-unreachable" || len(r.Logins) != 1 {
		t.Errorf("%+v", r.State)
	}
	if !slices.Equal(r.warnings, r.Notes) {
		t.Errorf("the warnings are %v", r.warnings)
	}
	var out strings.Builder
	newPrinter(&out).activity(r.cache, r.activity, statusNow)
	want := `cache       3.0 GiB of 20.0 GiB; in a day 75 % of 200 requests from the cache, 2.0 MiB saved
last pulls  docker 5 minutes ago, containerd 2 days ago
upstreams   reachable: ghcr.io, registry-1.docker.io; out of reach: quay.io
rate limit  docker.io serves 76 of 100 requests more without a login; the limit is for 6h0m0s
rate limit  gitlab.test serves 0 requests more with sidemirror's login, and others from 15:15 on
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestStatusCallsAWarningWhatThePageCallsOne(t *testing.T) {
	warning, note := &problem.Problem{Code: "upstream-unreachable", Text: "b", Hint: "h"}, &problem.Problem{Code: "n", Text: "c"}
	s := &status{Notes: []*problem.Problem{note, warning}, warnings: []*problem.Problem{warning}}
	var out strings.Builder
	if err := s.write(&out); err != nil {
		t.Fatal(err)
	}
	if want := "\nwarning: b\nhint: h\nnote: c\nno problems of this host found\n"; out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestStatusWithoutADaemonShowsNoActivity(t *testing.T) {
	r := readDaemon(t.Context(), admin.Client{Socket: t.TempDir() + "/admin.sock"})
	var out strings.Builder
	if newPrinter(&out).activity(r.cache, r.activity, statusNow); out.Len() > 0 {
		t.Errorf("%s", out.String())
	}
}

func TestWatchDrawsUntilItIsInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	drawn := 0
	var out strings.Builder
	err := redraw(ctx, &out, time.Millisecond, func() (string, error) {
		if drawn++; drawn == 3 {
			interrupt()
		}
		return "line\n", nil
	})
	if err != nil || drawn != 3 || strings.Count(out.String(), "line\x1b[K\n") != 2 {
		t.Errorf("drawn %d times, %v: %q", drawn, err, out.String())
	}
	wrong := errors.New("cannot read the host")
	if err := redraw(t.Context(), &out, time.Millisecond, func() (string, error) { return "", wrong }); !errors.Is(err, wrong) {
		t.Errorf("a failure: %v", err)
	}
}
