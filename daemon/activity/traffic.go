package activity

import (
	"time"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

// ring is the traffic of the last few spans of time of one length.
type ring struct {
	span  time.Duration
	spans []traffic
}

// traffic is a [Traffic] under construction.
type traffic struct {
	number         int64 // of the span, since 1970
	requests, hits int64
	bytes          [observe.Sources]int64
}

func newRing(span time.Duration, n int) ring { return ring{span: span, spans: make([]traffic, n)} }

func (r *ring) number(at time.Time) int64 { return at.UnixNano() / int64(r.span) }

// add adds a request that was served, and ended at end.
func (r *ring) add(q *observe.Request, end time.Time) {
	number := r.number(end)
	t := &r.spans[number%int64(len(r.spans))]
	switch {
	case number < t.number: // the clock was set back
		return
	case number > t.number:
		*t = traffic{number: number}
	}
	if q.Cache != "" {
		t.requests++
		if q.Source != observe.Upstream && (q.Cache == "hit" || q.Cache == "stale") {
			t.hits++
		}
	} else if q.Source == observe.Upstream {
		t.requests++
	}
	t.bytes[q.Source] += q.Bytes
}

// list returns the spans until now, the oldest first. A span without traffic is empty.
func (r *ring) list(now time.Time) []Traffic {
	last := r.number(now)
	list := make([]Traffic, 0, len(r.spans))
	for number := last - int64(len(r.spans)) + 1; number <= last; number++ {
		made := Traffic{Start: time.Unix(0, number*int64(r.span)).UTC()}
		if t := r.spans[number%int64(len(r.spans))]; t.number == number {
			made.Requests, made.Hits, made.Bytes = t.requests, t.hits, bytesOf(t.bytes)
		}
		list = append(list, made)
	}
	return list
}

// sum returns the sum of the spans until now.
func (r *ring) sum(now time.Time) Traffic {
	list := r.list(now)
	sum := Traffic{Start: list[0].Start}
	for _, t := range list {
		sum.Requests += t.Requests
		sum.Hits += t.Hits
		sum.Bytes.Cache += t.Bytes.Cache
		sum.Bytes.Upstream += t.Bytes.Upstream
		sum.Bytes.Prefetch += t.Bytes.Prefetch
	}
	return sum
}

func bytesOf(by [observe.Sources]int64) Bytes {
	return Bytes{Cache: by[observe.Cache], Upstream: by[observe.Upstream], Prefetch: by[observe.Prefetch]}
}
