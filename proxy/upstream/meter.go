package upstream

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// window is how long what an upstream sends is added up, and leastBusy how much of that time bytes must
// have been waited for to say how fast they come.
const (
	window    = 500 * time.Millisecond
	leastBusy = 400 * time.Millisecond
)

// meter measures how fast an upstream sends bodies, all of them together: one of several that share a
// line is no measure. Time in which no reader waits for bytes does not count, since a client may be slow.
type meter struct {
	mu      sync.Mutex
	open    []*meteredBody
	reading int       // bodies of which bytes are waited for
	since   time.Time // when that became more than none, or was counted last
	busy    time.Duration
	bytes   int64
	ticking bool
}

// meteredBody is a body of an upstream that has a rival.
type meteredBody struct {
	io.ReadCloser
	cancel   func() // the request
	upstream *Upstream
	rival    func() (rival, bool)
	why      atomic.Pointer[SkippedError] // it was ended for a faster one
	once     sync.Once
}

// metered returns the body of a response with a meter. cancel ends its request.
func (u *Upstream) metered(body io.ReadCloser, cancel func(), against func() (rival, bool)) io.ReadCloser {
	b := &meteredBody{ReadCloser: body, cancel: cancel, upstream: u, rival: against}
	m := &u.pace.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open = append(m.open, b)
	return b
}

// Read implements [io.Reader]. The error is a [*SkippedError] if another upstream is faster.
func (b *meteredBody) Read(p []byte) (int, error) {
	m := &b.upstream.pace.meter
	m.begin(b.upstream.now(), b.upstream.look)
	n, err := b.ReadCloser.Read(p)
	m.end(b.upstream.now(), n)
	if why := b.why.Load(); why != nil && !errors.Is(err, io.EOF) {
		return n, why
	}
	return n, err
}

// Close implements [io.Closer].
func (b *meteredBody) Close() error {
	b.once.Do(func() {
		m := &b.upstream.pace.meter
		m.mu.Lock()
		defer m.mu.Unlock()
		m.open = slices.DeleteFunc(m.open, func(other *meteredBody) bool { return other == b })
	})
	defer b.cancel()
	return b.ReadCloser.Close()
}

// begin counts a body of which bytes are waited for. look is called at the end of the window.
func (m *meter) begin(now time.Time, look func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reading++; m.reading == 1 {
		m.since = now
	}
	if !m.ticking {
		m.ticking = true
		time.AfterFunc(window, look)
	}
}

// end counts n bytes that were waited for.
func (m *meter) end(now time.Time, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bytes += int64(n)
	m.count(now)
	m.reading--
}

// count adds up the time in which bytes were waited for. m.mu is held.
func (m *meter) count(now time.Time) {
	if m.reading > 0 {
		m.busy += now.Sub(m.since)
		m.since = now
	}
}

// rate returns what came in a second since it was asked for last, and a body that is read. ok is false
// if that is not known yet.
func (m *meter) rate(now time.Time, look func()) (rate float64, of *meteredBody, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count(now)
	if m.ticking = m.reading > 0; m.ticking {
		time.AfterFunc(window, look)
	}
	if m.busy < leastBusy {
		return 0, nil, false
	}
	rate = float64(m.bytes) / m.busy.Seconds()
	m.busy, m.bytes = 0, 0
	if len(m.open) > 0 {
		of = m.open[0]
	}
	return rate, of, of != nil
}

// look looks at what came in the last window. If that was little, u is compared with the next upstream,
// and if that one is faster, the bodies of u end: their readers ask it instead.
func (u *Upstream) look() {
	m := &u.pace.meter
	rate, of, ok := m.rate(u.now(), u.look)
	if !ok || rate >= plenty {
		return
	}
	against, ok := of.rival()
	if !ok {
		return
	}
	u.compare(ofBytes, func(ctx context.Context) verdict {
		why, v := u.compareRates(ctx, against, rate)
		if v == slower {
			u.skip(skipThin, ofBlob, why)
			m.stop(why)
		}
		return v
	})
}

// stop ends the bodies that are open.
func (m *meter) stop(why *SkippedError) {
	m.mu.Lock()
	open := m.open
	m.open = nil
	m.mu.Unlock()
	for _, b := range open {
		b.why.Store(why)
		b.cancel()
	}
}
