package config

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// UseSockets makes c listen at the addresses at which systemd opens sockets for it, unless it has
// none. If listen is set, c keeps it, and must name only addresses that these sockets serve: the
// error is an [*Error] then. Nothing would respond at any other address, and engines could be pointed
// at it. If the host has no IPv6, [::1] need not be served.
func (c *Config) UseSockets(open []netip.AddrPort) error {
	if len(open) == 0 {
		return nil
	}
	at, set := c.from["listen"]
	if !set {
		c.Listen = slices.Clone(open)
		return nil
	}
	var missing []string
	for _, want := range c.Listen {
		served := slices.ContainsFunc(open, func(has netip.AddrPort) bool { return covers(has, want) })
		if !served && (want.Addr() != netip.IPv6Loopback() || hasIPv6()) {
			missing = append(missing, want.String())
		}
	}
	if missing == nil {
		return nil
	}
	e := &Error{source: c.source, listen: open}
	e.add(fault{
		at: at, text: "listen: systemd opens the sockets, and not at " + strings.Join(missing, ", "),
		hint: "remove listen, and change the addresses with \"systemctl edit sidemirror.socket\" and \"systemctl restart sidemirror.socket\"",
	})
	return e
}

// covers reports whether a socket that listens at has accepts connections to want.
func covers(has, want netip.AddrPort) bool {
	if has.Port() != want.Port() {
		return false
	}
	// Linux passes IPv4 connections to a socket at [::] too, unless it is configured not to.
	return has.Addr() == want.Addr() || has.Addr() == netip.IPv6Unspecified() ||
		has.Addr() == netip.IPv4Unspecified() && want.Addr().Is4()
}

// hasIPv6 reports whether this host has the IPv6 loopback address.
func hasIPv6() bool {
	addrs, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(addrs, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr() == netip.IPv6Loopback()
	})
}
