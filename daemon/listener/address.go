package listener

import (
	"fmt"
	"net/netip"

	"github.com/sidemirror/sidemirror/internal/portowner"
	"github.com/sidemirror/sidemirror/internal/problem"
)

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
