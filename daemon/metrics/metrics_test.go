package metrics

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/daemon/health"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/observe"
)

// scrape returns the lines that begin with sidemirror_.
func scrape(t *testing.T, m *Metrics) (lines []string) {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "sidemirror_") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func want(t *testing.T, lines []string, wanted ...string) {
	t.Helper()
	all := "\n" + strings.Join(lines, "\n") + "\n"
	for _, w := range wanted {
		if !strings.Contains(all, "\n"+w+"\n") {
			t.Errorf("%s is missing in%s", w, all)
		}
	}
}

func request(change func(*observe.Request)) *observe.Request {
	q := &observe.Request{
		Registry: "docker.io", Kind: "blob", Cache: "hit", Source: observe.Cache, Bytes: 10, Status: 200,
		Started: time.Unix(1_700_000_000, 0), Duration: time.Second / 2, Trusted: true, UserAgent: "containerd/2.1.4",
	}
	if change != nil {
		change(q)
	}
	return q
}

func TestEachEventHasItsMetric(t *testing.T) {
	m := New("1.2.3", Present{
		CacheBytes: func() (int64, bool) { return 4711, true },
		Problems: func(now time.Time) []health.Problem {
			r := health.New(nil)
			r.Set("x", now, &problem.Problem{Code: "login-refused", Text: "a"}, &problem.Problem{Code: "login-refused", Text: "b"})
			return r.Problems(now)
		},
		LastPulls: func() map[string]time.Time {
			return map[string]time.Time{"containerd": time.UnixMilli(1_700_000_000_500)}
		},
		Repairs:   func() map[string]int64 { return map[string]int64{"docker": 3, "podman": 0} },
		Reachable: func() map[string]bool { return map[string]bool{"registry-1.docker.io": false, "ghcr.io": true} },
	})
	m.Configured([]string{"docker.io"}, []string{"registry-1.docker.io"})
	m.RequestEnded(request(nil))
	m.RequestEnded(request(func(q *observe.Request) { q.Cache, q.Source = "fill", observe.Upstream }))
	m.RequestEnded(request(func(q *observe.Request) {
		q.Cache, q.Source, q.Bytes, q.Failed, q.Status = "", observe.Nowhere, 99, true, 404
	}))
	m.RequestEnded(request(func(q *observe.Request) { q.Source = observe.Prefetch }))
	m.RequestEnded(request(func(q *observe.Request) { q.Registry, q.Kind, q.Cache, q.Source = "", "", "", observe.Nowhere }))
	m.UpstreamResponded(observe.Exchange{Upstream: "registry-1.docker.io", Status: 200})
	m.UpstreamResponded(observe.Exchange{Upstream: "registry-1.docker.io", Status: 799})
	m.UpstreamResponded(observe.Exchange{Upstream: "registry-1.docker.io"})
	m.UpstreamResponded(observe.Exchange{Upstream: "registry-1.docker.io", Canceled: true})
	m.UpstreamResponded(observe.Exchange{Upstream: "registry-1.docker.io", Status: 206, Redirected: true})
	m.TokenExchanged("registry-1.docker.io", 200)
	m.ConnectionsChanged("registry-1.docker.io", +1)
	m.ConnectionsChanged("registry-1.docker.io", +1)
	m.ConnectionsChanged("registry-1.docker.io", -1)
	m.RateLimited(observe.RateLimit{Registry: "docker.io", Identity: "anonymous", Limit: 100, Remaining: 42, Seen: time.Now()})
	m.RateLimited(observe.RateLimit{Registry: "docker.io", Identity: "login", Limit: 200, Remaining: 1, Seen: time.Now().Add(-time.Hour), Reset: time.Now().Add(-time.Minute)})
	m.Prefetched(1000, 400)
	m.Evicted(5000, 2)
	lines := scrape(t, m)
	want(t, lines,
		`sidemirror_requests_total{cache="hit",kind="blob",registry="docker.io"} 2`,
		`sidemirror_requests_total{cache="fill",kind="blob",registry="docker.io"} 1`,
		`sidemirror_requests_total{cache="error",kind="blob",registry="docker.io"} 1`,
		`sidemirror_requests_total{cache="none",kind="other",registry="none"} 1`,
		`sidemirror_request_duration_seconds_count{cache="hit",kind="blob"} 2`,
		`sidemirror_request_duration_seconds_bucket{cache="hit",kind="blob",le="0.5"} 2`,
		`sidemirror_bytes_sent_total{source="cache"} 10`, `sidemirror_bytes_sent_total{source="upstream"} 10`, `sidemirror_bytes_sent_total{source="prefetch"} 10`,
		`sidemirror_upstream_requests_total{code="200",upstream="registry-1.docker.io"} 1`,
		`sidemirror_upstream_requests_total{code="other",upstream="registry-1.docker.io"} 1`,
		`sidemirror_upstream_requests_total{code="error",upstream="registry-1.docker.io"} 1`,
		`sidemirror_upstream_requests_total{code="canceled",upstream="registry-1.docker.io"} 1`,
		`sidemirror_upstream_redirected_requests_total{code="206",upstream="registry-1.docker.io"} 1`,
		`sidemirror_token_exchanges_total{code="200",upstream="registry-1.docker.io"} 1`,
		`sidemirror_upstream_connections{upstream="registry-1.docker.io"} 1`,
		`sidemirror_upstream_reachable{upstream="registry-1.docker.io"} 0`, `sidemirror_upstream_reachable{upstream="ghcr.io"} 1`,
		`sidemirror_rate_limit_remaining{identity="anonymous",registry="docker.io"} 42`,
		`sidemirror_rate_limit{identity="anonymous",registry="docker.io"} 100`,
		`sidemirror_prefetched_bytes_total 1000`, `sidemirror_prefetched_unused_bytes_total 400`,
		`sidemirror_cache_evicted_bytes_total 5000`, `sidemirror_cache_evicted_files_total 2`, `sidemirror_cache_bytes 4711`,
		`sidemirror_engine_last_pull_timestamp_seconds{engine="containerd"} 1.7000000005e+09`,
		`sidemirror_problems{code="login-refused",severity="error"} 2`,
		`sidemirror_config_repairs_total{engine="docker"} 3`, `sidemirror_config_repairs_total{engine="podman"} 0`,
		`sidemirror_build_info{version="1.2.3"} 1`,
	)
	for _, line := range lines {
		if strings.Contains(line, `identity="login"`) {
			t.Errorf("a limit is shown after its reset: %s", line)
		}
	}
}

func TestLabelsAreBounded(t *testing.T) {
	m := New("", Present{})
	m.Configured([]string{"docker.io"}, nil)
	for i := range 5000 {
		name := fmt.Sprintf("r%d.example", i)
		m.RequestEnded(request(func(q *observe.Request) { q.Registry = name }))
		m.RequestEnded(request(func(q *observe.Request) { q.Registry, q.Trusted, q.Failed = "u"+name, false, true }))
		m.UpstreamResponded(observe.Exchange{Upstream: name, Status: i})
		m.TokenExchanged(name, i)
		m.ConnectionsChanged(name, +1)
		m.RateLimited(observe.RateLimit{Registry: "l" + name, Identity: "anonymous", Seen: time.Now()})
	}
	lines := scrape(t, m)
	count := map[string]int{}
	for _, line := range lines {
		name, _, _ := strings.Cut(line, "{")
		count[name]++
		if strings.Contains(line, "ur") && strings.Contains(line, `registry="ur`) {
			t.Errorf("an untrusted caller made a label: %s", line)
		}
	}
	for name, n := range count {
		if n > 70*70 { // upstreams by codes
			t.Errorf("%s has %d time series", name, n)
		}
	}
	if n := count["sidemirror_requests_total"]; n > maxNames+3 {
		t.Errorf("%d series of requests", n)
	}
	m.RequestEnded(request(nil))
	want(t, scrape(t, m), `sidemirror_requests_total{cache="hit",kind="blob",registry="docker.io"} 1`)
}

func BenchmarkRequestEnded(b *testing.B) {
	m := New("", Present{})
	m.Configured([]string{"docker.io"}, nil)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		q := request(nil)
		for pb.Next() {
			m.RequestEnded(q)
		}
	})
}
