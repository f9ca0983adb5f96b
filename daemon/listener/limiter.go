package listener

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

const (
	// maxUntrusted limits the connections of untrusted users: the idle connections of a
	// local user must not shut the engines out.
	maxUntrusted = 512

	// maxConnections limits all connections.
	maxConnections = 8192

	// silence is how long Drain waits for a connection that has sent nothing yet. Clients
	// written in Go hold such connections in reserve, and miss them no more than idle ones.
	silence = 250 * time.Millisecond
)

// Limiter limits the connections of all listeners that share it.
type Limiter struct {
	trusted func(net.Conn) bool

	maxAll, maxUntrusted   int64
	all, untrusted, silent atomic.Int64 // silent: those of all that have sent nothing yet
}

// NewLimiter returns a Limiter that calls trusted for each new connection. Connections that
// are not trusted have a lower limit.
func NewLimiter(trusted func(net.Conn) bool) *Limiter {
	return &Limiter{trusted: trusted, maxAll: maxConnections, maxUntrusted: maxUntrusted}
}

// acquire returns a slot for c, or nil if there is none.
func (l *Limiter) acquire(c net.Conn) *slot {
	if l.all.Add(1) > l.maxAll {
		l.all.Add(-1)
		return nil
	}
	s := &slot{limiter: l}
	if !l.trusted(c) {
		if l.untrusted.Add(1) > l.maxUntrusted {
			l.untrusted.Add(-1)
			l.all.Add(-1)
			return nil
		}
		s.untrusted = true
	}
	l.silent.Add(1)
	return s
}

// Drain waits until the only connections left are those that have been silent for a while.
// It reports whether that is so when it returns, at the latest when ctx is done.
func (l *Limiter) Drain(ctx context.Context) bool {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		all, silent := l.all.Load(), l.silent.Load()
		if all == 0 || all == silent && time.Since(began) > silence {
			return true
		}
		select {
		case <-ctx.Done():
			return all == silent
		case <-tick.C:
		}
	}
}

// slot is what one connection holds of a Limiter.
type slot struct {
	limiter         *Limiter
	untrusted       bool
	spoke, released atomic.Bool
}

// speak notes that something came over the connection.
func (s *slot) speak() {
	if !s.spoke.Load() && !s.spoke.Swap(true) {
		s.limiter.silent.Add(-1)
	}
}

// release returns the slot to the Limiter. Only the first call counts.
func (s *slot) release() {
	if s.released.Swap(true) {
		return
	}
	s.speak()
	if s.untrusted {
		s.limiter.untrusted.Add(-1)
	}
	s.limiter.all.Add(-1)
}
