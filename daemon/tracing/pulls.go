package tracing

import (
	"context"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

const (
	// quiet is how long after the last request of a pull another one still belongs to it.
	quiet = time.Minute

	// settled is how long after the last request of a pull its span is sent. Spans of later requests
	// still belong to it.
	settled = 5 * time.Second

	// again is how long after the last request of a pull that went beyond the tag a request for the
	// same tag is a new pull. Some engines ask for a tag twice.
	again = 2 * time.Second

	maxPulls = 256
)

// pull is the requests of one caller for one image: one trace.
type pull struct {
	key     observe.PullKey
	context context.Context // with the span
	span    trace.Span
	tag     string
	digest  string // of the first manifest that was asked for by digest
	beyond  bool   // it asked for more than the tag
	sent    bool   // the span has ended

	running            int       // requests under way
	last               time.Time // when one ended last
	requests, failures int
	bytes              [observe.Sources]int64
}

// pulls are the pulls that another request may belong to.
type pulls struct {
	begun func(p *pull, r *observe.Request) // sets a pull's context and span

	mu     sync.Mutex
	all    map[*pull]struct{}
	latest map[observe.PullKey]*pull
	timer  *time.Timer
	closed bool
}

// begin returns the pull that a request belongs to, which begins now.
func (s *pulls) begin(r *observe.Request) *pull {
	key := r.PullKey()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.latest[key]
	if p == nil || p.isOver(r) {
		p = s.add(key, r)
	}
	p.running++
	if r.Tag == "" {
		p.beyond = true
	} else if p.tag == "" {
		p.tag = strings.Clone(r.Tag)
	}
	if r.Kind == "manifest" && p.digest == "" {
		p.digest = strings.Clone(r.Digest)
	}
	return p
}

// isOver reports whether r begins another pull.
func (p *pull) isOver(r *observe.Request) bool {
	var idle time.Duration
	if p.running == 0 {
		idle = r.Started.Sub(p.last)
	}
	return idle > quiet || r.Tag != "" && p.tag != "" && (r.Tag != p.tag || p.beyond && idle > again)
}

func (s *pulls) add(key observe.PullKey, r *observe.Request) *pull {
	if len(s.all) >= maxPulls {
		s.removeOldest()
	}
	key.Registry, key.Repository = strings.Clone(key.Registry), strings.Clone(key.Repository)
	p := &pull{key: key, last: r.Started}
	s.begun(p, r)
	if s.all == nil {
		s.all, s.latest = map[*pull]struct{}{}, map[observe.PullKey]*pull{}
		s.timer = time.AfterFunc(settled, s.settle)
	} else if len(s.all) == 0 {
		s.timer.Reset(settled)
	}
	s.all[p], s.latest[key] = struct{}{}, p
	return p
}

// removeOldest removes the pull whose last request ended before those of all others.
func (s *pulls) removeOldest() {
	var oldest *pull
	for p := range s.all {
		if oldest == nil || p.last.Before(oldest.last) {
			oldest = p
		}
	}
	s.remove(oldest)
}

func (s *pulls) remove(p *pull) {
	p.send()
	delete(s.all, p)
	if s.latest[p.key] == p {
		delete(s.latest, p.key)
	}
}

// end records that a request of p has ended.
func (s *pulls) end(p *pull, r *observe.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.running--
	p.requests++
	if r.Failed {
		p.failures++
	}
	p.bytes[r.Source] += r.Bytes
	if end := r.Started.Add(r.Duration); end.After(p.last) {
		p.last = end
	}
}

// settle sends the spans of pulls without a request for a while, and looks again later if there are
// pulls left.
func (s *pulls) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for p := range s.all {
		switch idle := time.Since(p.last); {
		case p.running > 0 || idle < settled:
		case idle < quiet:
			p.send()
		default:
			s.remove(p)
		}
	}
	if len(s.all) > 0 {
		s.timer.Reset(settled)
	}
}

// close sends the spans of all pulls.
func (s *pulls) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	for p := range s.all {
		s.remove(p)
	}
}
