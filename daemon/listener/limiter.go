package listener

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxUntrusted limits the connections of untrusted users: the idle connections of a
	// local user must not shut the engines out.
	maxUntrusted = 512

	// maxConnections limits all connections.
	maxConnections = 8192

	// maxGuests limits the connections of all guests, and maxPerGuest those of one. A connection has
	// one request at a time.
	maxGuests   = 1024
	maxPerGuest = 64

	// silence is how long Drain waits for a connection that has sent nothing yet. Clients
	// written in Go hold such connections in reserve, and miss them no more than idle ones.
	silence = 250 * time.Millisecond
)

// Limiter limits the connections of all listeners that share it.
type Limiter struct {
	trusted func(net.Conn) bool

	maxAll, maxUntrusted, maxGuests, maxPerGuest int64
	all, untrusted                               atomic.Int64

	mu       sync.Mutex
	silent   map[*slot]bool // of the connections from which nothing was read yet
	guests   int64
	perGuest map[netip.Addr]int64

	// Of a site:
	share      Share
	perVisitor map[netip.Prefix]int
	outside    int
}

// NewLimiter returns a Limiter that calls trusted for each new connection. Connections that
// are not trusted have a lower limit.
func NewLimiter(trusted func(net.Conn) bool) *Limiter {
	return &Limiter{trusted: trusted, maxAll: maxConnections, maxUntrusted: maxUntrusted, maxGuests: maxGuests, maxPerGuest: maxPerGuest}
}

// acquire returns a slot for c, or nil if there is none.
func (l *Limiter) acquire(c net.Conn) *slot {
	if l.all.Add(1) > l.maxAll {
		l.all.Add(-1)
		return nil
	}
	s := &slot{limiter: l, conn: c}
	if !l.trusted(c) {
		if l.untrusted.Add(1) > l.maxUntrusted {
			l.untrusted.Add(-1)
			l.all.Add(-1)
			return nil
		}
		s.untrusted = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addSilent(s)
	return s
}

// acquireGuest returns a slot for the connection of a guest, or nil if there is none. Guests neither
// take the slots of this host's users nor those of each other.
func (l *Limiter) acquireGuest(c net.Conn, guest netip.Addr) *slot {
	if l.all.Add(1) > l.maxAll {
		l.all.Add(-1)
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.guests >= l.maxGuests || l.perGuest[guest] >= l.maxPerGuest {
		l.all.Add(-1)
		return nil
	}
	if l.perGuest == nil {
		l.perGuest = make(map[netip.Addr]int64)
	}
	l.guests++
	l.perGuest[guest]++
	s := &slot{limiter: l, conn: c, guest: guest}
	l.addSilent(s)
	return s
}

// releaseGuest returns the slot of a guest. l.mu must be locked.
func (l *Limiter) releaseGuest(guest netip.Addr) {
	l.guests--
	if l.perGuest[guest]--; l.perGuest[guest] == 0 {
		delete(l.perGuest, guest)
	}
}

// addSilent records a new connection. l.mu must be locked.
func (l *Limiter) addSilent(s *slot) {
	if l.silent == nil {
		l.silent = make(map[*slot]bool)
	}
	l.silent[s] = true
}

// Drain waits until the only connections left are those that have been silent for a while.
// It reports whether that is so when it returns, at the latest when ctx is done.
func (l *Limiter) Drain(ctx context.Context) bool {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		if l.all.Load() == 0 || time.Since(began) > silence && l.onlySilent() {
			return true
		}
		select {
		case <-ctx.Done():
			return l.onlySilent()
		case <-tick.C:
		}
	}
}

// onlySilent reports whether no connection is left that has sent something. On a busy machine a
// request may have arrived long before this process reads it.
func (l *Limiter) onlySilent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all.Load() != int64(len(l.silent)) {
		return false
	}
	for s := range l.silent {
		if unread(s.conn) {
			return false
		}
	}
	return true
}

// unread reports whether the kernel has bytes of c that were not read yet (SIOCINQ, tcp(7)).
func unread(c net.Conn) bool {
	conn, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	waiting := 0
	// A connection that is closed has nothing to read.
	_ = raw.Control(func(fd uintptr) { waiting, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
	return waiting > 0
}

// slot is what one connection holds of a Limiter.
type slot struct {
	limiter         *Limiter
	conn            net.Conn
	untrusted       bool
	guest           netip.Addr   // not valid: it is no guest's
	visitor         netip.Prefix // not valid: it is no visitor's
	outside         bool         // the visitor's requests are refused
	spoke, released atomic.Bool
}

// speak notes that something came over the connection.
func (s *slot) speak() {
	if s.spoke.Load() || s.spoke.Swap(true) {
		return
	}
	s.limiter.mu.Lock()
	defer s.limiter.mu.Unlock()
	delete(s.limiter.silent, s)
}

// release returns the slot to the Limiter. Only the first call counts.
func (s *slot) release() {
	if s.released.Swap(true) {
		return
	}
	if s.untrusted {
		s.limiter.untrusted.Add(-1)
	}
	if s.guest.IsValid() {
		s.limiter.mu.Lock()
		s.limiter.releaseGuest(s.guest)
		s.limiter.mu.Unlock()
	}
	if s.visitor.IsValid() {
		s.limiter.mu.Lock()
		s.limiter.releaseVisitor(s)
		s.limiter.mu.Unlock()
	}
	s.limiter.all.Add(-1)
	s.speak()
}
