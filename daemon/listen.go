package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sidemirror/sidemirror/proxy/peer"
)

const (
	// maxUntrusted bounds the connections of everybody but the trusted users: a local
	// user's idle ones must not keep the engines out (security.md §7).
	maxUntrusted = 512

	// maxConnections bounds all of them.
	maxConnections = 8192

	// writeStall is security.md §6's: a writer that makes no progress for so long is cut.
	writeStall = 60 * time.Second
)

// door counts the connections of all listeners, and lets in or not.
type door struct {
	trusted         func(net.Conn) bool
	most, strangers int64 // the limits
	all, untrusted  atomic.Int64
	silent          atomic.Int64 // of all, those that have sent nothing yet
}

// newDoor is one for the users that uids gives, at each connection anew.
func newDoor(uids func() []uint32) *door {
	return &door{
		trusted: func(c net.Conn) bool {
			caller, err := peer.Lookup(c)
			return err == nil && slices.Contains(uids(), caller.UID)
		},
		most:      maxConnections,
		strangers: maxUntrusted,
	}
}

// enter answers with c's place, or nil if there is none.
func (d *door) enter(c net.Conn) *place {
	if d.all.Add(1) > d.most {
		d.all.Add(-1)
		return nil
	}
	p := &place{door: d}
	if !d.trusted(c) {
		if d.untrusted.Add(1) > d.strangers {
			d.untrusted.Add(-1)
			d.all.Add(-1)
			return nil
		}
		p.stranger = true
	}
	d.silent.Add(1)
	return p
}

// place is one connection's.
type place struct {
	door        *door
	stranger    bool
	spoke, left atomic.Bool
}

// speak says that something came over the connection.
func (p *place) speak() {
	if !p.spoke.Load() && !p.spoke.Swap(true) {
		p.door.silent.Add(-1)
	}
}

// leave gives the place back, once.
func (p *place) leave() {
	if p.left.Swap(true) {
		return
	}
	p.speak()
	if p.stranger {
		p.door.untrusted.Add(-1)
	}
	p.door.all.Add(-1)
}

// listener makes a conn of each connection for which there is a place. The others
// are closed at once: the engine goes on to the registry.
type listener struct {
	*net.TCPListener
	door  *door
	stall time.Duration
}

func (l listener) Accept() (net.Conn, error) {
	for {
		tcp, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		if place := l.door.enter(tcp); place != nil {
			return &conn{TCPConn: tcp, stall: l.stall, place: place}, nil
		}
		_ = tcp.Close()
	}
}

// listenOn opens addr.
func listenOn(ctx context.Context, addr netip.AddrPort) (*net.TCPListener, error) {
	network := "tcp6" // without an IPv4 half: who wants that lists 0.0.0.0 too
	if addr.Addr().Is4() {
		network = "tcp4"
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network, addr.String())
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listening on %v: the address is taken%s; end that, or change listen: %w", addr, holder(addr), err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listening on %v: this host has no such address; see \"ip address\", or change listen: %w", addr, err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listening on %v: ports below 1024 need CAP_NET_BIND_SERVICE; use another, or let systemd hand the socket over: %w", addr, err)
	case err != nil:
		return nil, fmt.Errorf("listening on %v: %w", addr, err)
	}
	return l.(*net.TCPListener), nil
}
