package listener

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// answers reports whether a request over c is answered with 200.
func answers(c net.Conn) bool {
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == 200
}

func TestUntrustedUsersCannotTakeTheSlotsOfEngines(t *testing.T) {
	t.Parallel()
	var trusted atomic.Bool
	l := &Limiter{trusted: func(net.Conn) bool { return trusted.Load() }, maxAll: 4, maxUntrusted: 2}
	addr := serveOn(t, l, time.Minute, ok)

	untrusted := []net.Conn{dial(t, addr), dial(t, addr)}
	for i, c := range untrusted {
		if !answers(c) {
			t.Fatalf("untrusted connection %d has no answer", i)
		}
	}
	if answers(dial(t, addr)) {
		t.Error("an untrusted connection beyond the limit has an answer")
	}
	trusted.Store(true)
	engines := []net.Conn{dial(t, addr), dial(t, addr)}
	for i, c := range engines {
		if !answers(c) {
			t.Errorf("engine %d has no answer while untrusted users hold connections", i)
		}
	}
	if answers(dial(t, addr)) {
		t.Error("a connection beyond the limit has an answer")
	}

	trusted.Store(false)
	_ = untrusted[0].Close()
	// The server notices this on its own; until then the slot is taken.
	for deadline := time.Now().Add(30 * time.Second); !answers(dial(t, addr)); {
		if time.Now().After(deadline) {
			t.Fatal("the slot of a closed connection was not released")
		}
	}
}

func TestGuestsHaveSlotsOfTheirOwn(t *testing.T) {
	t.Parallel()
	l := &Limiter{trusted: func(net.Conn) bool { return false }, maxAll: 6, maxUntrusted: 1, maxGuests: 3, maxPerGuest: 2}
	one, two := netip.MustParseAddr("172.17.0.2"), netip.MustParseAddr("172.17.0.3")
	conn, _ := net.Pipe()
	defer conn.Close()
	first, second := l.acquireGuest(conn, one), l.acquireGuest(conn, one)
	if first == nil || second == nil || l.acquireGuest(conn, one) != nil {
		t.Error("a guest does not have two connections")
	}
	if l.acquireGuest(conn, two) == nil || l.acquireGuest(conn, two) != nil {
		t.Error("all guests do not have three connections")
	}
	user := l.acquire(conn)
	if user == nil || l.acquire(conn) != nil {
		t.Error("guests take the slots of this host's users, or give them more")
	}
	first.release()
	first.release()
	if l.acquireGuest(conn, two) == nil || l.acquireGuest(conn, two) != nil {
		t.Error("a slot that is released twice does not become exactly one")
	}
	second.release()
	if n := l.perGuest[one]; n != 0 || len(l.perGuest) != 1 {
		t.Errorf("after the end of its connections, a guest has %d of %v", n, l.perGuest)
	}
}

func TestManyIdleUntrustedConnectionsDoNotShutATrustedUserOut(t *testing.T) {
	t.Parallel()
	var trusted atomic.Bool
	l := NewLimiter(func(net.Conn) bool { return trusted.Load() })
	addr := serveOn(t, l, time.Minute, ok)
	var first net.Conn
	for i := range maxUntrusted + 50 {
		c := dial(t, addr)
		if i == 0 {
			first = c
		}
	}
	if !answers(first) {
		t.Error("the first untrusted connection has no answer")
	}
	if n := l.untrusted.Load(); n > maxUntrusted {
		t.Errorf("%d untrusted connections were accepted, more than %d", n, maxUntrusted)
	}
	if answers(dial(t, addr)) {
		t.Error("an untrusted connection beyond the limit has an answer")
	}
	trusted.Store(true)
	if !answers(dial(t, addr)) {
		t.Error("a trusted user has no answer")
	}
}
