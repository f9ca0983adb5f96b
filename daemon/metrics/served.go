package metrics

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

// served counts the requests of clients. The counters of each combination of labels are found
// without a lock: requests come 90,000 times a second if all is stored.
type served struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec

	known atomic.Pointer[map[servedKey]*servedCounters]
	mu    sync.Mutex // for replacing known
}

type servedKey struct{ registry, kind, cache string }

type servedCounters struct {
	requests prometheus.Counter
	seconds  prometheus.Observer
}

func (c *servedCounters) observe(took time.Duration) {
	c.requests.Inc()
	c.seconds.Observe(took.Seconds())
}

// of returns the counters for a request.
func (s *served) of(q *observe.Request, n *names) *servedCounters {
	key := servedKey{n.registryOf(q), q.Kind, q.Cache}
	switch {
	case q.Failed:
		key.cache = "error"
	case key.cache == "":
		key.cache = "none"
	}
	if key.kind == "" {
		key.kind = "other"
	}
	if known := s.known.Load(); known != nil {
		if c := (*known)[key]; c != nil {
			return c
		}
	}
	return s.add(key)
}

// add adds the counters for a combination of labels.
func (s *served) add(key servedKey) *servedCounters {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[servedKey]*servedCounters{}
	if known := s.known.Load(); known != nil {
		if c := (*known)[key]; c != nil {
			return c
		}
		maps.Copy(next, *known)
	}
	c := &servedCounters{requests: s.requests.WithLabelValues(key.registry, key.kind, key.cache), seconds: s.seconds.WithLabelValues(key.kind, key.cache)}
	next[key] = c
	s.known.Store(&next)
	return c
}
