package listener

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// Network is a network of guests: containers or virtual machines behind a bridge.
type Network interface {
	// Contains reports whether addr is a guest's.
	Contains(addr netip.Addr) bool
}

// OpenGuests listens on addr, this host's address on the network of the guests of a bridge. Who is a
// guest [GuestListener.Accept] decides by the sender's address, to which the kernel sends over the
// bridge alone, so that no host elsewhere can complete a connection with it. The listener is not bound
// to the bridge: its connections would be too, for ever, and end with it when it is made anew. The
// error is fs.ErrPermission if the port needs a capability that the process lacks.
func OpenGuests(ctx context.Context, name string, addr netip.AddrPort) (*net.TCPListener, error) {
	network := "tcp6"
	if addr.Addr().Is4() {
		network = "tcp4"
	}
	l, err := new(net.ListenConfig).Listen(ctx, network, addr.String())
	if err != nil {
		return nil, fmt.Errorf("listening on %v for the guests of %s: %w", addr, name, err)
	}
	return l.(*net.TCPListener), nil
}

// GuestListener accepts connections of guests.
type GuestListener struct {
	limitedListener
	network Network
}

// LimitGuests returns a listener that accepts from l the connections of guests in network that limiter
// has a slot for, and closes all others at once.
func LimitGuests(l *net.TCPListener, limiter *Limiter, network Network) *GuestListener {
	return &GuestListener{limitedListener{TCPListener: l, limiter: limiter, stall: writeStall}, network}
}

// Accept implements [net.Listener].
func (l *GuestListener) Accept() (net.Conn, error) {
	for {
		tcp, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		guest := tcp.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().WithZone("")
		if l.network.Contains(guest) {
			if slot := l.limiter.acquireGuest(tcp, guest); slot != nil {
				return newLimitedConn(tcp, l.stall, slot), nil
			}
		}
		_ = tcp.Close()
	}
}
