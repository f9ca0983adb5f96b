// Package metrics counts what the proxy does, for Prometheus.
package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sidemirror/sidemirror/daemon/health"
	"github.com/sidemirror/sidemirror/proxy/observe"
)

const namespace = "sidemirror"

// scrapes bounds how many scrapes are answered at a time.
const scrapes = 4

// Present is what is read at each scrape, since it is no event. Each function may be nil.
type Present struct {
	CacheBytes func() (n int64, known bool)
	Problems   func(now time.Time) []health.Problem
	LastPulls  func() map[string]time.Time // by engine, see [observe.Engine]
	Shared     func() (s observe.Shared, ok bool)
	Repairs    func() map[string]int64 // of the engines' files, by engine
	Reachable  func() map[string]bool  // by upstream of the configuration
}

// Metrics are the metrics of the daemon. It implements [observe.Observer].
type Metrics struct {
	observe.Nothing

	registry *prometheus.Registry
	names    names
	served   served

	bytes       [observe.Sources]prometheus.Counter
	upstream    *prometheus.CounterVec
	redirected  *prometheus.CounterVec
	tokens      *prometheus.CounterVec
	connections *prometheus.GaugeVec
	skipped     *prometheus.GaugeVec
	hedged      *prometheus.CounterVec
	prefetched  prometheus.Counter
	unused      prometheus.Counter
	evicted     prometheus.Counter
	evictedAll  prometheus.Counter
	limits      limits
}

// New returns the metrics of a daemon of that version.
func New(version string, present Present) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
		m.registry.MustRegister(c)
		return c
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
		m.registry.MustRegister(g)
		return g
	}
	m.served.requests = counters("requests_total", "Requests of clients, by registry, by kind (manifest, blob and so on) and by how the cache served (hit, stale, fill, miss, none, error).", "registry", "kind", "cache")
	m.served.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "request_duration_seconds", Help: "How long requests of clients took until the whole response was out.",
		Buckets: []float64{.001, .005, .025, .1, .5, 2.5, 10, 60, 300},
	}, []string{"kind", "cache"})
	m.registry.MustRegister(m.served.seconds)
	sent := counters("bytes_sent_total", "Bytes of content that clients were sent, by where it came from.", "source")
	for _, s := range []observe.Source{observe.Cache, observe.Upstream, observe.Prefetch, observe.SharedStore} {
		m.bytes[s] = sent.WithLabelValues(s.String())
	}
	m.upstream = counters("upstream_requests_total", "Requests to upstreams, by the status of the response (error: none).", "upstream", "code")
	m.redirected = counters("upstream_redirected_requests_total", "Requests to where upstreams redirect.", "upstream", "code")
	m.tokens = counters("token_exchanges_total", "Requests for tokens.", "upstream", "code")
	m.connections = gauges("upstream_connections", "Connections that are open for an upstream: to itself, to its token server, and to where it redirects.", "upstream")
	m.skipped = gauges("upstream_skipped", "1 if the upstream is skipped for a while because another one of its registry is faster, else 0.", "upstream")
	m.hedged = counters("hedged_requests_total", "Requests for which the next upstream was asked as well, because this one was late.", "upstream")
	m.prefetched = counter("prefetched_bytes_total", "Bytes that were fetched before a client asked for them.")
	m.unused = counter("prefetched_unused_bytes_total", "Prefetched bytes of layers that no client has asked for.")
	m.evicted = counter("cache_evicted_bytes_total", "Bytes of content that were removed to stay within the bounds of the cache.")
	m.evictedAll = counter("cache_evicted_files_total", "Files that were removed to stay within the bounds of the cache.")
	build := gauges("build_info", "1, with the version of sidemirror.", "version")
	build.WithLabelValues(version).Set(1)
	m.registry.MustRegister(
		&m.limits, &presentCollector{present},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Handler returns what serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapes, EnableOpenMetrics: true, DisableCompression: true})
}

// Configured sets which registries and upstreams have labels of their own in any case.
func (m *Metrics) Configured(registries, upstreams []string) {
	m.names.configure(registries, upstreams)
	m.skipped.Reset() // with another configuration none is skipped yet
}

// RequestEnded implements [observe.Observer].
func (m *Metrics) RequestEnded(q *observe.Request) {
	m.served.of(q, &m.names).observe(q.Duration)
	if q.Source != observe.Nowhere && q.Bytes > 0 {
		m.bytes[q.Source].Add(float64(q.Bytes))
	}
}

// UpstreamResponded implements [observe.Observer].
func (m *Metrics) UpstreamResponded(e observe.Exchange) {
	counters, code := m.upstream, codeOf(e.Status)
	if e.Redirected {
		counters = m.redirected
	}
	if e.Canceled {
		code = "canceled"
	}
	counters.WithLabelValues(m.names.upstream(e.Upstream), code).Inc()
}

// TokenExchanged implements [observe.Observer].
func (m *Metrics) TokenExchanged(upstream string, status int) {
	m.tokens.WithLabelValues(m.names.upstream(upstream), codeOf(status)).Inc()
}

// SkipChanged implements [observe.Observer].
func (m *Metrics) SkipChanged(upstream string, err error) {
	skipped := 0.0
	if err != nil {
		skipped = 1
	}
	m.skipped.WithLabelValues(m.names.upstream(upstream)).Set(skipped)
}

// Hedged implements [observe.Observer].
func (m *Metrics) Hedged(upstream string) {
	m.hedged.WithLabelValues(m.names.upstream(upstream)).Inc()
}

// ConnectionsChanged implements [observe.Observer].
func (m *Metrics) ConnectionsChanged(upstream string, by int) {
	m.connections.WithLabelValues(m.names.upstream(upstream)).Add(float64(by))
}

// RateLimited implements [observe.Observer].
func (m *Metrics) RateLimited(l observe.RateLimit) {
	l.Registry = m.names.registry(l.Registry)
	m.limits.set(l)
}

// Prefetched implements [observe.Observer].
func (m *Metrics) Prefetched(bytes, unused int64) {
	m.prefetched.Add(float64(bytes))
	m.unused.Add(float64(unused))
}

// Evicted implements [observe.Observer].
func (m *Metrics) Evicted(bytes int64, files int) {
	m.evicted.Add(float64(max(bytes, 0)))
	m.evictedAll.Add(float64(files))
}

// codeOf returns the label of an HTTP status. A server can send any number of three digits.
func codeOf(status int) string {
	switch {
	case status == 0:
		return "error"
	case http.StatusText(status) == "":
		return "other"
	}
	return strconv.Itoa(status)
}
