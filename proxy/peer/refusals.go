package peer

import (
	"context"
	"slices"
	"sync"
	"time"
)

// maxRefusals bounds how many different callers are remembered.
const maxRefusals = 64

// Refusals remembers the callers that were not trusted lately. Its methods may be called on a nil
// pointer, which remembers none.
type Refusals struct {
	mu      sync.Mutex
	callers map[refusedCaller]*refusal
}

type refusedCaller struct {
	uid    uint32
	cgroup uint64
}

type refusal struct {
	requests int64
	last     time.Time
}

// Refusal is a caller that was not trusted.
type Refusal struct {
	UID uint32

	// Group is the path of its control group, or "" if that is not known.
	Group string

	// Named reports whether trust.uids has its user, so that only the group is missing.
	Named bool

	// Container reports whether it is in a container, and so cannot be trusted.
	Container bool

	Requests int64
	Last     time.Time
}

type unrecordedKey struct{}

// Unrecorded returns a context for a request that is not counted: one of this process itself.
func Unrecorded(ctx context.Context) context.Context {
	return context.WithValue(ctx, unrecordedKey{}, true)
}

// note counts a request of c. If there are too many callers, it forgets the one that was not seen
// for longest.
func (r *Refusals) note(c Caller) {
	if r == nil {
		return
	}
	who := refusedCaller{c.UID, c.Cgroup}
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.callers[who]
	if known == nil {
		if len(r.callers) >= maxRefusals {
			delete(r.callers, r.oldest())
		}
		if r.callers == nil {
			r.callers = make(map[refusedCaller]*refusal)
		}
		known = new(refusal)
		r.callers[who] = known
	}
	known.requests++
	known.last = time.Now()
}

func (r *Refusals) oldest() (who refusedCaller) {
	var last time.Time
	for c, known := range r.callers {
		if last.IsZero() || known.last.Before(last) {
			who, last = c, known.last
		}
	}
	return who
}

// Since returns the callers that sent a request since then, the last one first. It leaves out those
// that t trusts, as after a change of the configuration.
func (r *Refusals) Since(then time.Time, t *Trust) []Refusal {
	var list []Refusal
	for _, c := range r.copies(then) {
		who := Caller{UID: c.who.uid, Cgroup: c.who.cgroup}
		if t.Trusts(who) {
			continue
		}
		list = append(list, t.describe(who, c.refusal))
	}
	slices.SortFunc(list, func(a, b Refusal) int { return b.Last.Compare(a.Last) })
	return list
}

type refusalOf struct {
	who refusedCaller
	refusal
}

// copies returns what is known, so that no request waits while groups are looked up.
func (r *Refusals) copies(then time.Time) (list []refusalOf) {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for who, known := range r.callers {
		if !known.last.Before(then) {
			list = append(list, refusalOf{who, *known})
		}
	}
	return list
}
