package metrics

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

const (
	// maxNames bounds the registries, and the upstreams, without configuration that have a label of
	// their own: each value of a label is a time series for ever.
	maxNames = 64

	// otherName is the label of those that have none.
	otherName = "other"
)

// names knows which registries and upstreams have a label of their own. It is read without a lock.
type names struct {
	mu                    sync.Mutex // for replacing the sets
	registries, upstreams set
}

// set is a set of names that grows.
type set struct {
	known atomic.Pointer[map[string]string]
	extra int // that no configuration names; under names.mu
}

// find returns the label of name; "" if it has none yet.
func (s *set) find(name string) string {
	if known := s.known.Load(); known != nil {
		return (*known)[name]
	}
	return ""
}

// add adds names. n.mu is held.
func (s *set) add(names ...string) {
	next := map[string]string{}
	if known := s.known.Load(); known != nil {
		maps.Copy(next, *known)
	}
	for _, name := range names {
		name = strings.Clone(name)
		next[name] = name
	}
	s.known.Store(&next)
}

func (n *names) configure(registries, upstreams []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.registries.add(registries...)
	n.upstreams.add(upstreams...)
}

// registryOf returns the label for the registry of a request. Only what a trusted caller got makes a
// new one: an untrusted caller can name any registry.
func (n *names) registryOf(q *observe.Request) string {
	if q.Registry == "" {
		return "none"
	}
	if label := n.registries.find(q.Registry); label != "" || !q.Trusted || q.Failed {
		return orOther(label)
	}
	return n.learn(&n.registries, q.Registry)
}

// registry returns the label for a registry that an upstream is of.
func (n *names) registry(name string) string { return n.learn(&n.registries, name) }

// upstream returns the label for an upstream.
func (n *names) upstream(name string) string { return n.learn(&n.upstreams, name) }

// learn returns the label of name, which it makes if there are not too many.
func (n *names) learn(s *set, name string) string {
	if label := s.find(name); label != "" {
		return label
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if label := s.find(name); label != "" || s.extra >= maxNames {
		return orOther(label)
	}
	s.extra++
	s.add(name)
	return s.find(name)
}

func orOther(label string) string {
	if label == "" {
		return otherName
	}
	return label
}
