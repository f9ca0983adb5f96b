package listener

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/internal/portowner"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// Covers reports whether a socket that listens at has accepts connections to want.
func Covers(has, want netip.AddrPort) bool {
	if has.Port() != want.Port() {
		return false
	}
	// Linux passes IPv4 connections to a socket at [::] too, unless it is configured not to.
	return has.Addr() == want.Addr() || has.Addr() == netip.IPv6Unspecified() ||
		has.Addr() == netip.IPv4Unspecified() && want.Addr().Is4()
}

// Reachable returns an address by which a listener at addr is reached from this host.
func Reachable(addr netip.AddrPort) netip.AddrPort {
	switch addr.Addr() {
	case netip.IPv4Unspecified():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addr.Port())
	case netip.IPv6Unspecified():
		return netip.AddrPortFrom(netip.IPv6Loopback(), addr.Port())
	}
	return addr
}

// CheckServed returns a problem if an address of listen is not served by sockets that are open
// at these addresses, and nil otherwise. Engines may be configured to use any address of listen.
// If the host has no IPv6, [::1] is not expected.
func CheckServed(open, listen []netip.AddrPort) *problem.Problem {
	var missing []string
	for _, want := range listen {
		served := slices.ContainsFunc(open, func(has netip.AddrPort) bool { return Covers(has, want) })
		if !served && (want.Addr() != netip.IPv6Loopback() || HasIPv6()) {
			missing = append(missing, want.String())
		}
	}
	if missing == nil {
		return nil
	}
	return &problem.Problem{
		Code: "listen-not-served",
		Text: "listen names addresses that systemd's socket is not open at, and they are not served: " + strings.Join(missing, ", "),
		Hint: "add a ListenStream= for each with \"systemctl edit sidemirror.socket\", and restart sidemirror.socket",
	}
}

// HasIPv6 reports whether this host has the IPv6 loopback address.
func HasIPv6() bool {
	addrs, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(addrs, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr() == netip.IPv6Loopback()
	})
}

// CheckPort returns a problem if any user of the host can listen at addr whenever sidemirror
// does not, and nil otherwise. Engines would send that user their requests and credentials.
func CheckPort(addr netip.AddrPort) *problem.Problem {
	return checkPort(addr, portowner.Setting)
}

func checkPort(addr netip.AddrPort, setting string) *problem.Problem {
	first := portowner.FirstUnprivileged(setting)
	if addr.Port() < first {
		return nil
	}
	return &problem.Problem{
		Code: "port-unprivileged",
		Text: fmt.Sprintf("any user of this host can listen at %v while sidemirror does not, and engines would trust that user: only ports below %d are reserved for root", addr, first),
		Hint: portowner.Hint(first),
	}
}
