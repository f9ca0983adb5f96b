// Package distant measures pulls by whole engines from a registry that is far away, directly and
// through sidemirror. Its tests check the distance itself.
package distant

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Link is a TCP proxy in front of a registry that makes it distant: each new connection and each
// response waits for the round trip, and each connection has a rate of its own. Since it passes TLS
// through, the round trips of TLS are real.
type Link struct {
	roundTrip time.Duration
	rate      int64 // bytes/s of each connection
	target    string
	listener  net.Listener

	sent atomic.Int64
	all  sync.WaitGroup

	mu    sync.Mutex
	ended bool
	open  map[net.Conn]bool
}

// Listen listens at address until the end of the test and passes connections on to target.
func Listen(tb testing.TB, address, target string, roundTrip time.Duration, rate int64) *Link {
	tb.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	l := &Link{roundTrip: roundTrip, rate: rate, target: target, listener: listener, open: make(map[net.Conn]bool)}
	l.all.Go(l.accept)
	tb.Cleanup(l.close)
	return l
}

// Sent returns how many bytes have come from the target.
func (l *Link) Sent() int64 { return l.sent.Load() }

func (l *Link) close() {
	_ = l.listener.Close()
	l.mu.Lock()
	l.ended = true
	for c := range l.open {
		_ = c.Close()
	}
	l.mu.Unlock()
	l.all.Wait()
}

// add registers a connection, to be closed with the link. It reports false if the link has ended.
func (l *Link) add(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		_ = c.Close()
		return false
	}
	l.open[c] = true
	return true
}

func (l *Link) remove(c net.Conn) {
	_ = c.Close()
	l.mu.Lock()
	delete(l.open, c)
	l.mu.Unlock()
}

func (l *Link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		if l.add(near) {
			l.all.Go(func() { l.pass(near) })
		}
	}
}

// pass serves one connection.
func (l *Link) pass(near net.Conn) {
	defer l.remove(near)
	time.Sleep(l.roundTrip) // TCP's handshake takes no time on loopback
	far, err := net.Dial("tcp", l.target)
	if err != nil || !l.add(far) {
		return
	}
	defer l.remove(far)
	l.all.Go(func() {
		_, _ = io.Copy(far, near)
		// The client has closed, and waits for nothing more: engines do not half-close.
		_ = far.Close()
	})
	l.delay(near, far)
}

// piece is what was read at once, and when it arrives.
type piece struct {
	data []byte
	due  time.Time
}

// delay copies from the target to the client, each byte a round trip later and no faster than the
// rate.
func (l *Link) delay(near, far net.Conn) {
	// As many bytes as a fast connection has under way.
	const size, most = 16 << 10, 512
	pieces := make(chan piece, most)
	l.all.Go(func() {
		defer close(pieces)
		for {
			data := make([]byte, size)
			n, err := far.Read(data)
			if n > 0 {
				pieces <- piece{data[:n], time.Now().Add(l.roundTrip)}
			}
			if err != nil {
				return
			}
		}
	})
	var free time.Time // when all that has been sent would be through
	var fault error
	for p := range pieces {
		if fault != nil {
			continue
		}
		if free.Before(p.due) {
			free = p.due
		}
		free = free.Add(time.Duration(int64(len(p.data)) * int64(time.Second) / l.rate))
		// A shorter sleep takes longer than was asked.
		if early := time.Until(free); early > time.Millisecond {
			time.Sleep(early)
		}
		// A reader that has a byte finds it counted.
		l.sent.Add(int64(len(p.data)))
		var n int
		n, fault = near.Write(p.data)
		l.sent.Add(int64(n - len(p.data)))
		if fault != nil {
			fault = errors.Join(fault, far.Close()) // which ends the reading
		}
	}
}
