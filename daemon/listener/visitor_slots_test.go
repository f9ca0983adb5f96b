package listener

import (
	"net"
	"net/netip"
	"testing"
)

// slots takes most slots of l for a peer, and returns those that it got.
func slots(l *Limiter, peer string, most int) (got []*slot) {
	for range most {
		if s := l.acquireVisitor(&net.TCPConn{}, netip.MustParseAddr(peer)); s != nil {
			got = append(got, s)
		}
	}
	return got
}

// siteLimiter serves 10.0.0.0/8 with 20 connections for each address, and the proxy 10.0.0.1 with any
// number.
func siteLimiter() *Limiter {
	return NewSiteLimiter(func(peer netip.Addr) (netip.Prefix, int, bool) {
		of := netip.PrefixFrom(peer, peer.BitLen())
		if peer == netip.MustParseAddr("10.0.0.1") {
			return of, 0, false
		}
		return of, 20, !netip.MustParsePrefix("10.0.0.0/8").Contains(peer)
	})
}

func TestVisitorsShareTheConnectionsOfASite(t *testing.T) {
	t.Parallel()
	l := siteLimiter()
	one := slots(l, "10.0.0.7", 10_000)
	if len(one) != 20 {
		t.Errorf("one address has %d connections, want 20", len(one))
	}
	if n := len(slots(l, "10.0.0.8", 10_000)); n != 20 {
		t.Errorf("the next address has %d connections, want 20", n)
	}
	if n := len(slots(l, "10.0.0.1", 1000)); n != 1000 {
		t.Errorf("a proxy has %d connections, want 1000", n)
	}
	one[0].release()
	one[0].release()
	if n := len(slots(l, "10.0.0.7", 5)); n != 1 {
		t.Errorf("after one connection has ended, %d new ones are possible, want 1", n)
	}
}

func TestThoseWhoAreRefusedCannotShutOutVisitors(t *testing.T) {
	t.Parallel()
	l := siteLimiter()
	var outside []*slot
	for i := range 250 {
		got := slots(l, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}).String(), 100)
		if len(got) > maxPerOutside {
			t.Fatalf("an address from outside has %d connections", len(got))
		}
		outside = append(outside, got...)
	}
	if len(outside) != maxOutside {
		t.Errorf("%d connections from outside, want %d", len(outside), maxOutside)
	}
	inside := slots(l, "10.0.0.7", 20)
	if len(inside) != 20 {
		t.Errorf("a visitor has %d connections meanwhile, want 20", len(inside))
	}
	for _, s := range append(outside, inside...) {
		s.release()
	}
	if l.all.Load() != 0 || l.outside != 0 || len(l.perVisitor) != 0 || len(l.silent) != 0 {
		t.Errorf("when all have ended, %d are counted, %d from outside, of %d visitors", l.all.Load(), l.outside, len(l.perVisitor))
	}
}
