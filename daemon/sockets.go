package daemon

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/listener"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
)

// listen takes over what systemd opened, or opens what the configuration names.
func (d *daemon) listen(ctx context.Context) error {
	handed, err := sdnotify.Sockets()
	if err != nil {
		return err
	}
	if len(handed) > 0 {
		d.handed = true
		d.listeners = make(map[netip.AddrPort]*net.TCPListener)
		for _, l := range handed {
			d.listeners[l.Addr().(*net.TCPAddr).AddrPort()] = l
		}
		d.warnOfHanded(d.config)
		return nil
	}
	d.listeners, err = d.open(ctx, d.config.Listen)
	return err
}

// warnOfHanded says at which addresses of listen nobody listens, although the engines
// may have been told them: "apply" writes what listen has, whatever systemd opened.
func (d *daemon) warnOfHanded(c *config.Config) {
	var missing []netip.AddrPort
	for _, want := range c.Listen {
		if !slices.ContainsFunc(d.addresses(c), func(has netip.AddrPort) bool { return covers(has, want) }) {
			missing = append(missing, want)
		}
	}
	if len(missing) > 0 {
		d.log.WithField("addresses", texts(missing)).Warn("listen names addresses that systemd's socket is not open at, and they are not served; add a ListenStream= for each by \"systemctl edit sidemirror.socket\" and restart that")
	}
}

// covers reports whether who listens at has is reached at want.
func covers(has, want netip.AddrPort) bool {
	if has.Port() != want.Port() {
		return false
	}
	// Linux gives IPv4 connections to a socket at [::] too, unless told otherwise.
	return has.Addr() == want.Addr() || has.Addr() == netip.IPv6Unspecified() ||
		has.Addr() == netip.IPv4Unspecified() && want.Addr().Is4()
}

// open opens those of addrs that are not open yet: all or none.
func (d *daemon) open(ctx context.Context, addrs []netip.AddrPort) (map[netip.AddrPort]*net.TCPListener, error) {
	opened := make(map[netip.AddrPort]*net.TCPListener)
	for _, addr := range addrs {
		if d.listeners[addr] != nil {
			continue
		}
		l, err := listener.Open(ctx, addr)
		if err != nil {
			closeAll(opened)
			return nil, err
		}
		opened[addr] = l
	}
	return opened, nil
}

func closeAll(listeners map[netip.AddrPort]*net.TCPListener) {
	for _, l := range listeners {
		_ = l.Close() // nothing was written to a listener that could be lost
	}
}

// addresses are those that are served when c is in force.
func (d *daemon) addresses(c *config.Config) []netip.AddrPort {
	if !d.handed {
		return c.Listen
	}
	return slices.SortedFunc(maps.Keys(d.listeners), func(a, b netip.AddrPort) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Port(), b.Port()))
	})
}

// reachable is where addr is reached from this host.
func reachable(addr netip.AddrPort) netip.AddrPort {
	switch {
	case !addr.Addr().IsUnspecified():
		return addr
	case addr.Addr().Is4():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addr.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), addr.Port())
}

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return out
}
