package activity

import (
	"slices"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

const (
	// shownFor is how long a pull is shown after its end.
	shownFor = time.Hour

	// quiet is how long after the last request of a pull another one still belongs to it.
	quiet = time.Minute

	// again is how long after the last request of a pull that went beyond the tag a request for
	// the same tag is a new pull. Some engines ask for a tag twice.
	again = 2 * time.Second

	maxPulls = 256

	// maxUntrusted bounds the pulls of untrusted callers, so that they cannot push out those of
	// engines.
	maxUntrusted = maxPulls / 4

	maxImage = 512 // bytes of an image's name
)

// pull is a [Pull] under construction.
type pull struct {
	key         observe.PullKey
	tag, digest string
	trusted     bool
	begin, end  time.Time
	beyond      bool // it asked for more than the tag
	layers      bool // layers were sent
	failed      bool // by the last request

	requests, failures int
	bytes, layerBytes  [observe.Sources]int64
}

// pulls are the pulls of the last hour.
type pulls struct {
	all    []*pull // the one that began first comes first
	last   map[observe.PullKey]*pull
	recent *pull // the one of the last request: comparing it is cheaper than finding it
}

// add adds a request for a manifest or a blob that ended at end.
func (s *pulls) add(q *observe.Request, key observe.PullKey, end time.Time) {
	p := s.recent
	if p == nil || p.key != key {
		p = s.last[key]
	}
	if p == nil || p.isOver(q) {
		p = s.begin(key, q)
	}
	s.recent = p
	p.trusted = p.trusted || q.Trusted
	p.requests++
	if end.After(p.end) {
		p.end = end
	}
	if p.failed = q.Failed; q.Failed {
		p.failures++
	}
	if q.Tag == "" {
		p.beyond = true
	}
	if p.tag == "" && q.Tag != "" {
		p.tag = strings.Clone(q.Tag)
	}
	if p.digest == "" && q.Kind == "manifest" && q.Digest != "" {
		p.digest = strings.Clone(q.Digest)
	}
	p.bytes[q.Source] += q.Bytes
	if q.Kind == "blob" && q.Bytes > 0 {
		p.layers = true
		p.layerBytes[q.Source] += q.Bytes
	}
}

// isOver reports whether q begins another pull.
func (p *pull) isOver(q *observe.Request) bool {
	idle := q.Started.Sub(p.end)
	return idle > quiet || q.Tag != "" && p.tag != "" && (q.Tag != p.tag || p.beyond && idle > again)
}

// begin makes room for a pull and adds it.
func (s *pulls) begin(key observe.PullKey, q *observe.Request) *pull {
	if s.last == nil {
		s.last = map[observe.PullKey]*pull{}
	}
	s.expire(q.Started)
	if len(s.all) >= maxPulls {
		s.remove(0)
	}
	if !q.Trusted {
		s.boundUntrusted()
	}
	key.Registry, key.Repository = strings.Clone(key.Registry), strings.Clone(key.Repository)
	p := &pull{key: key, begin: q.Started, trusted: q.Trusted}
	s.all = append(s.all, p)
	s.last[key] = p
	return p
}

// boundUntrusted removes the first pull of an untrusted caller if there are too many.
func (s *pulls) boundUntrusted() {
	first, n := -1, 0
	for i, p := range s.all {
		if p.trusted {
			continue
		}
		if n++; first < 0 {
			first = i
		}
	}
	if n >= maxUntrusted {
		s.remove(first)
	}
}

func (s *pulls) remove(i int) {
	if p := s.all[i]; s.last[p.key] == p {
		delete(s.last, p.key)
	}
	if s.all[i] == s.recent {
		s.recent = nil
	}
	s.all = slices.Delete(s.all, i, i+1)
}

// expire removes the pulls that ended more than an hour before now.
func (s *pulls) expire(now time.Time) {
	for i := len(s.all) - 1; i >= 0; i-- {
		if now.Sub(s.all[i].end) > shownFor {
			s.remove(i)
		}
	}
}

// list returns the pulls, the one that began last first.
func (s *pulls) list(now time.Time) []Pull {
	s.expire(now)
	list := make([]Pull, 0, len(s.all))
	for _, p := range slices.Backward(s.all) {
		list = append(list, p.shown())
	}
	return list
}

func (p *pull) shown() Pull {
	made := Pull{
		Image: p.image(), Engine: p.key.Engine, Trusted: p.trusted, UID: p.key.UID,
		Started: p.begin.UTC(), Seconds: p.end.Sub(p.begin).Seconds(), Outcome: p.outcome(),
		Requests: p.requests, Failures: p.failures, Bytes: bytesOf(p.bytes),
	}
	if p.layers && made.Seconds > 0 {
		made.Speed = float64(made.Bytes.Total()) / made.Seconds
	}
	return made
}

// image returns the reference that the caller pulled, as far as it is known.
func (p *pull) image() string {
	name := p.key.Registry + "/" + p.key.Repository
	switch {
	case p.tag != "":
		name += ":" + p.tag
	case p.digest != "":
		name += "@" + p.digest
	}
	return name[:min(len(name), maxImage)]
}

func (p *pull) outcome() Outcome {
	fetched := p.layerBytes[observe.Upstream] + p.layerBytes[observe.Prefetch]
	switch {
	case !p.layers && p.failed:
		return Failed
	case !p.layers:
		return Checked
	case fetched == 0:
		return Stored
	case p.layerBytes[observe.Cache] == 0:
		return Fetched
	}
	return Mixed
}
