package upstream

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// dialer makes the connections of one upstream's clients, each under its own rule. The
// rules see the resolved address at the moment of connecting, so that neither a notation
// nor a name that changes its address gets past them.
type dialer struct {
	Config
	upstream *Upstream
}

func (d dialer) dial(ctx context.Context, network, addr string, check func(netip.Addr) error) (net.Conn, error) {
	n := net.Dialer{Timeout: d.Registry.DialTimeout, KeepAlive: 30 * time.Second, Resolver: d.resolver}
	if proxy := d.Forward.server(addr); proxy != nil {
		return proxy.dial(ctx, n) // it may be at any address
	}
	n.Control = func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if d.Unconfigured && d.isOwn(ap) {
			return &blockedError{"sidemirror's own address"}
		}
		return check(ap.Addr())
	}
	return n.DialContext(ctx, network, addr)
}

// isOwn reports whether sidemirror listens at an address.
func (d dialer) isOwn(to netip.AddrPort) bool {
	addr := to.Addr().Unmap().WithZone("")
	return slices.ContainsFunc(d.Own, func(own netip.AddrPort) bool {
		return own.Port() == to.Port() && (own.Addr().Unmap().WithZone("") == addr || own.Addr().IsUnspecified() && ofThisHost(addr))
	})
}

// ofThisHost reports whether an address is one of this host's.
func ofThisHost(addr netip.Addr) bool {
	all, _ := net.InterfaceAddrs() // without them an address counts as another host's
	return slices.ContainsFunc(all, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap().WithZone("") == addr
	})
}

// toUpstream connects to the upstream itself and records whether it is a private one.
func (d dialer) toUpstream(ctx context.Context, network, addr string) (net.Conn, error) {
	return d.dial(ctx, network, addr, func(a netip.Addr) error {
		c := classify(a)
		if d.Unconfigured && c > private {
			return checkAddress(a, private)
		}
		if c == private || c == loopback {
			d.upstream.private.Store(true)
		}
		return nil
	})
}

// toRealm connects to a token server that the policy allows: it is configured or well
// known.
func (d dialer) toRealm(ctx context.Context, network, addr string) (net.Conn, error) {
	return d.dial(ctx, network, addr, func(a netip.Addr) error {
		if d.Unconfigured {
			return checkAddress(a, private)
		}
		return nil
	})
}

// toRedirect connects to where an upstream redirects.
func (d dialer) toRedirect(ctx context.Context, network, addr string) (net.Conn, error) {
	return d.dial(ctx, network, addr, func(a netip.Addr) error {
		return checkAddress(a, d.upstream.furthestRedirect())
	})
}

// furthestRedirect returns how near to this host an upstream may redirect: as near as it is itself.
func (u *Upstream) furthestRedirect() class {
	switch {
	case !u.private.Load():
		return public
	case u.unconfigured:
		return private
	}
	return loopback
}

func isPrivateLiteral(host string) bool {
	a, err := netip.ParseAddr(host)
	if err != nil {
		return isLocalhost(strings.ToLower(host))
	}
	c := classify(a)
	return c == private || c == loopback
}
