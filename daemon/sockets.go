package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/sidemirror/sidemirror/daemon/listener"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
)

// sockets are the listening sockets of the daemon: those that systemd handed over, or those
// that it opened itself.
type sockets struct {
	handedOver bool
	open       map[netip.AddrPort]*net.TCPListener
}

// siteSocketName is the FileDescriptorName= of the sockets of the site.
const siteSocketName = "site"

// splitSockets returns the sockets for the engines of this host, and those of the site.
func splitSockets(handedOver []sdnotify.Socket) (own, site []*net.TCPListener) {
	for _, s := range handedOver {
		if s.Name == siteSocketName {
			site = append(site, s.TCPListener)
		} else {
			own = append(own, s.TCPListener)
		}
	}
	return own, site
}

func newSockets(handedOver []*net.TCPListener) *sockets {
	s := &sockets{handedOver: len(handedOver) > 0, open: make(map[netip.AddrPort]*net.TCPListener)}
	for _, l := range handedOver {
		s.open[l.Addr().(*net.TCPAddr).AddrPort()] = l
	}
	return s
}

// prepare opens those of addrs that are not open yet: all or none. It changes nothing that is
// seen from outside before commit is called. If the host has no IPv6, [::1] is left out.
func (s *sockets) prepare(ctx context.Context, addrs []netip.AddrPort) (*socketChange, error) {
	c := &socketChange{of: s, opened: make(map[netip.AddrPort]*net.TCPListener)}
	if s.handedOver {
		c.addrs = s.addresses()
		return c, nil
	}
	for _, addr := range addrs {
		if s.open[addr] == nil {
			l, err := listener.Open(ctx, addr)
			if len(addrs) > 1 && addr.Addr() == netip.IPv6Loopback() && noIPv6(err) {
				continue
			}
			if err != nil {
				c.cancel()
				return nil, err
			}
			c.opened[addr] = l
		}
		c.addrs = append(c.addrs, addr)
	}
	return c, nil
}

func noIPv6(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}

// addresses returns where the open sockets listen.
func (s *sockets) addresses() []netip.AddrPort {
	return slices.SortedFunc(maps.Keys(s.open), func(a, b netip.AddrPort) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Port(), b.Port()))
	})
}

func (s *sockets) close() {
	for _, l := range s.open {
		_ = l.Close() // no data can be lost with a listener
	}
}

// socketChange is a set of addresses that is ready to replace the one that is served.
type socketChange struct {
	of     *sockets
	addrs  []netip.AddrPort
	opened map[netip.AddrPort]*net.TCPListener
}

// cancel closes what prepare opened.
func (c *socketChange) cancel() {
	for _, l := range c.opened {
		_ = l.Close()
	}
}

// commit calls serve with each new socket and closes those that are not wanted any more.
// Their connections live on until they are idle.
func (c *socketChange) commit(serve func(*net.TCPListener)) {
	for addr, l := range c.opened {
		c.of.open[addr] = l
		serve(l)
	}
	for addr, l := range c.of.open {
		if !slices.Contains(c.addrs, addr) {
			delete(c.of.open, addr)
			_ = l.Close()
		}
	}
}

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return out
}
