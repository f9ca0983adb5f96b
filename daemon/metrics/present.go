package metrics

import (
	"cmp"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

var (
	cacheBytesDesc = prometheus.NewDesc(namespace+"_cache_bytes", "Bytes of content that are stored.", nil, nil)
	problemsDesc   = prometheus.NewDesc(namespace+"_problems", "Present problems, as \"sidemirror status\" shows them.", []string{"code", "severity"}, nil)
	repairsDesc    = prometheus.NewDesc(namespace+"_config_repairs_total", "How often sidemirror put its entry back into an engine's files that other programs had changed, since the watching service runs.", []string{"engine"}, nil)
	reachableDesc  = prometheus.NewDesc(namespace+"_upstream_reachable", "1 if the upstream could be reached when it was asked last, else 0.", []string{"upstream"}, nil)
	lastPullDesc   = prometheus.NewDesc(namespace+"_engine_last_pull_timestamp_seconds", "When an engine of this host got a manifest or a blob last.", []string{"engine"}, nil)
)

// presentCollector collects what is read at each scrape.
type presentCollector struct{ Present }

// Describe implements [prometheus.Collector].
func (c *presentCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- cacheBytesDesc
	descs <- problemsDesc
	descs <- lastPullDesc
	describeShared(descs)
	descs <- repairsDesc
	descs <- reachableDesc
}

// Collect implements [prometheus.Collector].
func (c *presentCollector) Collect(metrics chan<- prometheus.Metric) {
	if c.CacheBytes != nil {
		if n, known := c.CacheBytes(); known {
			metrics <- prometheus.MustNewConstMetric(cacheBytesDesc, prometheus.GaugeValue, float64(n))
		}
	}
	if c.Problems != nil {
		type label struct{ code, severity string }
		count := map[label]int{}
		for _, p := range c.Problems(time.Now()) {
			count[label{string(p.Code), p.Severity.String()}]++
		}
		for l, n := range count {
			metrics <- prometheus.MustNewConstMetric(problemsDesc, prometheus.GaugeValue, float64(n), l.code, l.severity)
		}
	}
	if c.Shared != nil {
		if s, ok := c.Shared(); ok {
			collectShared(metrics, s)
		}
	}
	c.collectRepairs(metrics)
	c.collectReachable(metrics)
	if c.LastPulls != nil {
		for engine, at := range c.LastPulls() {
			metrics <- prometheus.MustNewConstMetric(lastPullDesc, prometheus.GaugeValue, float64(at.UnixMilli())/1000, engine)
		}
	}
}

// collectRepairs collects nothing while the watching service does not run.
func (c *presentCollector) collectRepairs(metrics chan<- prometheus.Metric) {
	if c.Repairs == nil {
		return
	}
	for engine, n := range c.Repairs() {
		metrics <- prometheus.MustNewConstMetric(repairsDesc, prometheus.CounterValue, float64(n), engine)
	}
}

func (c *presentCollector) collectReachable(metrics chan<- prometheus.Metric) {
	if c.Reachable == nil {
		return
	}
	for upstream, reachable := range c.Reachable() {
		value := 0.0
		if reachable {
			value = 1
		}
		metrics <- prometheus.MustNewConstMetric(reachableDesc, prometheus.GaugeValue, value, upstream)
	}
}

// limits are the rate limits that upstreams reported last. One that is over is collected no more.
type limits struct {
	mu    sync.Mutex
	known map[limitKey]observe.RateLimit
}

type limitKey struct{ registry, identity string }

// limitLife is for how long a limit without a window counts.
const limitLife = 6 * time.Hour

var (
	remainingDesc = prometheus.NewDesc(namespace+"_rate_limit_remaining", "How many requests a registry still serves, as it said last, by whose they are (anonymous; login: sidemirror's; client: a client's own login).", []string{"registry", "identity"}, nil)
	limitDesc     = prometheus.NewDesc(namespace+"_rate_limit", "How many requests a registry serves in all.", []string{"registry", "identity"}, nil)
)

func (s *limits) set(l observe.RateLimit) {
	key := limitKey{l.Registry, l.Identity}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = map[limitKey]observe.RateLimit{}
	}
	if before, known := s.known[key]; known && l.Limit < 0 {
		l.Limit, l.Window = before.Limit, before.Window
	}
	s.known[key] = l
}

// Describe implements [prometheus.Collector].
func (s *limits) Describe(descs chan<- *prometheus.Desc) {
	descs <- remainingDesc
	descs <- limitDesc
}

// Collect implements [prometheus.Collector].
func (s *limits) Collect(metrics chan<- prometheus.Metric) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, l := range s.known {
		if now.Sub(l.Seen) > cmp.Or(l.Window, limitLife) || !l.Reset.IsZero() && now.After(l.Reset) {
			delete(s.known, key)
			continue
		}
		metrics <- prometheus.MustNewConstMetric(remainingDesc, prometheus.GaugeValue, float64(l.Remaining), key.registry, key.identity)
		if l.Limit >= 0 {
			metrics <- prometheus.MustNewConstMetric(limitDesc, prometheus.GaugeValue, float64(l.Limit), key.registry, key.identity)
		}
	}
}
