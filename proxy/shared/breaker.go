package shared

import (
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// tripsAfter is how many failures in a row open the breaker, unless one of them does at once.
	tripsAfter = 3

	// The breaker stays open for shortestPause at first, and twice as long each time, if nothing from
	// the store was verified meanwhile.
	shortestPause = 5 * time.Second
	longestPause  = 5 * time.Minute
)

// breaker is a circuit breaker. It is closed at first: the store is asked. Failures open it. When a
// pause is over, one request in the background, which no pull waits for, finds out whether it closes.
type breaker struct {
	mu       sync.Mutex
	open     bool
	why      *fault
	until    time.Time
	pause    time.Duration
	probing  bool
	failures int // in a row
}

// ask reports whether the store may be asked, and whether the caller must probe it.
func (b *breaker) ask(now time.Time) (closed, probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return true, false
	}
	if b.probing || now.Before(b.until) {
		return false, false
	}
	b.probing = true
	return false, true
}

// succeeded records that the store has responded as it should, and closes the breaker.
func (b *breaker) succeeded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open, b.probing, b.failures, b.why = false, false, 0, nil
}

// proved records that content from the store was right: the next pause is short again.
func (b *breaker) proved() {
	b.succeeded()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pause = 0
}

// unknown records that a request, which may have been the probe, has found out nothing.
func (b *breaker) unknown() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
}

// failed records a failure, which may open the breaker.
func (b *breaker) failed(f *fault, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures++
	if !b.open && b.failures < tripsAfter && !f.tripsAtOnce {
		return
	}
	if b.open && !b.probing {
		return // a request that began before it was opened
	}
	b.pause = min(max(2*b.pause, shortestPause), longestPause)
	b.open, b.probing, b.why, b.until = true, false, f, now.Add(b.pause)
}

// fault returns why the breaker is open; nil if it is closed.
func (b *breaker) fault() *fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.why
}

const (
	// distrustedFor is for how long the store is not asked for a blob of which it had wrong content.
	distrustedFor = time.Hour
	maxDistrusted = 4096
)

// distrust remembers of which blobs the store had wrong content.
type distrust struct {
	mu    sync.Mutex
	since map[digest.Digest]time.Time
}

func (d *distrust) add(dgst digest.Digest, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.since == nil {
		d.since = map[digest.Digest]time.Time{}
	}
	for old, at := range d.since {
		if len(d.since) >= maxDistrusted || now.Sub(at) >= distrustedFor {
			delete(d.since, old)
		}
	}
	d.since[dgst] = now
}

func (d *distrust) has(dgst digest.Digest, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	at, ok := d.since[dgst]
	return ok && now.Sub(at) < distrustedFor
}

// remove forgets a blob that was replaced.
func (d *distrust) remove(dgst digest.Digest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.since, dgst)
}
