package config

import "net/netip"

// MirrorURL returns the URL by which engines on this host reach a proxy that serves c.Listen:
// with the IPv4 loopback address if it is served, since every host has it, or else with the
// IPv6 one. It fails if neither is served.
func (c *Config) MirrorURL() (string, error) {
	v4, v6 := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
	for _, choice := range []struct {
		served  func(netip.Addr) bool
		instead netip.Addr // reached by this address, if valid
	}{
		{served: func(a netip.Addr) bool { return a.Is4() && a.IsLoopback() }},
		{served: func(a netip.Addr) bool { return a == netip.IPv4Unspecified() }, instead: v4},
		{served: func(a netip.Addr) bool { return a == v6 }},
		{served: func(a netip.Addr) bool { return a == netip.IPv6Unspecified() }, instead: v6},
	} {
		for _, at := range c.Listen {
			switch {
			case !choice.served(at.Addr()):
			case choice.instead.IsValid():
				return "http://" + netip.AddrPortFrom(choice.instead, at.Port()).String(), nil
			default:
				return "http://" + at.String(), nil
			}
		}
	}
	return "", unreachableError{c.File}
}

// unreachableError reports a configuration without an address for the engines: wrong usage.
type unreachableError struct{ file string }

// Error implements error.
func (e unreachableError) Error() string {
	return e.file + `: listen has no loopback address, the only kind by which engines reach sidemirror; add "127.0.0.1:305"`
}

// ExitCode returns 2: wrong usage.
func (unreachableError) ExitCode() int { return 2 }
