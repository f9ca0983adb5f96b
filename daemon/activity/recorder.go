package activity

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/proxy/observe"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

const (
	maxRateLimits = 64
	maxUpstreams  = 128
)

// Recorder records what a proxy does. It implements [observe.Observer].
type Recorder struct {
	observe.Nothing

	mu      sync.Mutex
	since   time.Time
	pulls   pulls
	minutes ring
	hours   ring
	engines map[string]time.Time
	lately  Engine // what was entered there last, to the second

	// Other locks, since these are not on the path of what the cache serves.
	limits    limits
	upstreams upstreams
	downloads downloads
}

// New returns a Recorder that knows nothing yet.
func New() *Recorder {
	return &Recorder{
		since:   time.Now(),
		minutes: newRing(time.Minute, 60),
		hours:   newRing(time.Hour, 24),
		engines: map[string]time.Time{},
	}
}

// RequestEnded implements [observe.Observer].
func (r *Recorder) RequestEnded(q *observe.Request) {
	if q.Kind != "manifest" && q.Kind != "blob" {
		return
	}
	key := q.PullKey()
	engine := key.Engine
	end := q.Started.Add(q.Duration)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pulls.add(q, key, end)
	if q.Failed {
		return
	}
	r.minutes.add(q, end)
	r.hours.add(q, end)
	if q.Trusted && q.UID >= 0 && (engine != r.lately.Name || end.Sub(r.lately.Last) >= time.Second) {
		r.engines[engine] = end
		r.lately = Engine{Name: engine, Last: end}
	}
}

// DownloadBegan implements [observe.Observer].
func (r *Recorder) DownloadBegan(d *observe.Download) { r.downloads.add(d) }

// DownloadEnded implements [observe.Observer].
func (r *Recorder) DownloadEnded(d *observe.Download) { r.downloads.remove(d) }

// RateLimited implements [observe.Observer].
func (r *Recorder) RateLimited(l observe.RateLimit) { r.limits.add(l) }

// UpstreamResponded implements [observe.Observer].
func (r *Recorder) UpstreamResponded(e observe.Exchange) {
	if !e.Redirected && !e.Canceled {
		r.upstreams.responded(e.Upstream, e.Status)
	}
}

// ReachChanged implements [observe.Observer].
func (r *Recorder) ReachChanged(upstream string, err error) { r.upstreams.reach(upstream, err) }

// SkipChanged implements [observe.Observer].
func (r *Recorder) SkipChanged(upstream string, err error) { r.upstreams.skip(upstream, err) }

// Configured sets which upstreams the configuration in force names. It forgets those that the one
// before named and this one does not, and those that are out of reach: the new configuration may be
// the repair, and what it does is found out anew.
func (r *Recorder) Configured(names []string) { r.upstreams.configure(names) }

// Activity returns what happened until now.
func (r *Recorder) Activity(now time.Time) Activity {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := Activity{
		Since: r.since.UTC(), Pulls: r.pulls.list(now), Minutes: r.minutes.list(now), Day: r.hours.sum(now),
		Downloads:  r.downloads.list(r.pulls.imageOf),
		RateLimits: r.limits.list(now), Upstreams: r.upstreams.list(), Engines: []Engine{},
	}
	for name, last := range r.engines {
		a.Engines = append(a.Engines, Engine{Name: name, Last: last.UTC()})
	}
	slices.SortFunc(a.Engines, func(a, b Engine) int { return b.Last.Compare(a.Last) })
	return a
}

// LastPulls returns when the engines of this host pulled last.
func (r *Recorder) LastPulls() map[string]time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.engines)
}

// Reachable returns, for each upstream of the configuration that was asked, whether it could be reached
// when it was asked last.
func (r *Recorder) Reachable() map[string]bool { return r.upstreams.reachable() }

// limits are the rate limits that upstreams reported last.
type limits struct {
	mu    sync.Mutex
	known map[limitKey]observe.RateLimit
}

type limitKey struct{ registry, upstream, identity string }

func (s *limits) add(l observe.RateLimit) {
	key := limitKey{l.Registry, l.Upstream, l.Identity}
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.known[key]
	if !known && len(s.known) >= maxRateLimits {
		return
	}
	if s.known == nil {
		s.known = map[limitKey]observe.RateLimit{}
	}
	if l.Limit < 0 && known { // a 429 may say nothing of it
		l.Limit, l.Window = before.Limit, before.Window
	}
	s.known[key] = l
}

// limitLife is for how long a limit without a window is shown.
const limitLife = 6 * time.Hour

// list returns the limits whose windows are not over.
func (s *limits) list(now time.Time) []RateLimit {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []RateLimit{}
	for key, l := range s.known {
		if now.Sub(l.Seen) > cmp.Or(l.Window, limitLife) || !l.Reset.IsZero() && now.After(l.Reset) {
			delete(s.known, key)
			continue
		}
		made := RateLimit{
			Registry: l.Registry, Upstream: l.Upstream, Identity: l.Identity, Remaining: l.Remaining,
			Window: l.Window.Seconds(), Seen: l.Seen.UTC(),
		}
		if l.Limit >= 0 {
			made.Limit = &l.Limit
		}
		if !l.Reset.IsZero() {
			made.Reset = new(l.Reset.UTC())
		}
		list = append(list, made)
	}
	slices.SortFunc(list, func(a, b RateLimit) int {
		return cmp.Or(strings.Compare(a.Registry, b.Registry), strings.Compare(a.Upstream, b.Upstream), strings.Compare(a.Identity, b.Identity))
	})
	return list
}

// upstreams are the upstreams that were asked.
type upstreams struct {
	mu         sync.Mutex
	known      map[string]*Upstream
	configured map[string]bool
}

// of returns the entry of an upstream; nil if there are too many. s.mu is held.
func (s *upstreams) of(name string) *Upstream {
	if u := s.known[name]; u != nil {
		return u
	}
	if s.known == nil {
		s.known = map[string]*Upstream{}
	}
	if len(s.known) >= maxUpstreams && !s.forgetOldest() {
		return nil
	}
	u := &Upstream{Name: name, Configured: s.configured[name], Reachable: true}
	s.known[name] = u
	return u
}

// forgetOldest removes the upstream without configuration that was asked longest ago.
func (s *upstreams) forgetOldest() bool {
	var oldest *Upstream
	for _, u := range s.known {
		if !u.Configured && (oldest == nil || u.LastAsked.Before(oldest.LastAsked)) {
			oldest = u
		}
	}
	if oldest == nil {
		return false
	}
	delete(s.known, oldest.Name)
	return true
}

func (s *upstreams) responded(name string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.of(name)
	if u == nil {
		return
	}
	u.Requests++
	u.LastAsked, u.LastStatus = time.Now().UTC(), status
	if status == 0 || status >= 500 {
		u.Failures++
	}
	switch {
	case status != 0 && !u.Reachable:
		u.Reachable, u.Reason, u.Changed = true, "", new(u.LastAsked)
	case status == 0 && u.Requests == u.Failures: // it has never responded
		u.Reachable = false
	}
}

func (s *upstreams) reach(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.of(name)
	if u == nil {
		return
	}
	u.Reachable, u.Reason, u.Changed = err == nil, "", new(time.Now().UTC())
	if err == nil {
		return
	}
	u.Reason = err.Error()
	if e, ok := errors.AsType[*oci.Error](err); ok {
		u.Reason = e.Text()
	}
}

func (s *upstreams) skip(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.of(name)
	if u == nil {
		return
	}
	if u.Skipped = ""; err != nil {
		u.Skipped = err.Error()
	}
}

func (s *upstreams) configure(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.configured = map[string]bool{}
	for _, name := range names {
		s.configured[name] = true
	}
	for name, u := range s.known {
		u.Skipped = "" // it is found out anew
		removed := u.Configured && !s.configured[name]
		if u.Configured = s.configured[name]; removed || !u.Reachable {
			delete(s.known, name)
		}
	}
}

// reachable returns which of the configured upstreams that were asked could be reached then.
func (s *upstreams) reachable() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	reachable := map[string]bool{}
	for name, u := range s.known {
		if u.Configured && u.Requests > 0 {
			reachable[name] = u.Reachable
		}
	}
	return reachable
}

func (s *upstreams) list() []Upstream {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Upstream, 0, len(s.known))
	for _, u := range s.known {
		list = append(list, *u)
	}
	slices.SortFunc(list, func(a, b Upstream) int { return strings.Compare(a.Name, b.Name) })
	return list
}
