package hostconfig

import (
	"fmt"
	"net/netip"
	"net/url"

	"github.com/sidemirror/sidemirror/internal/portowner"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// checkPort decides whether engines may be pointed at sidemirror's address: they trust the process
// that answers there. It sets what keeps all files from being changed, and what every entry has to be
// removed for.
func (c *composer) checkPort() {
	if len(c.want.Engines) == 0 {
		return
	}
	addr, err := mirrorAddr(c.want.Mirror)
	if err != nil {
		c.blocked = &problem.Problem{Code: "mirror-address-invalid", Path: c.want.Mirror, Text: "is not an address that engines can reach", Err: err, Hint: `listen at "127.0.0.1:305"`}
		return
	}
	if addr.Addr().Is6() {
		c.blocked = &problem.Problem{
			Code: "mirror-address-ipv6", Path: c.want.Mirror, Text: "containerd 1.x ignores a hosts.toml that names an IPv6 address",
			Hint: `add "127.0.0.1:305" to listen`,
		}
		return
	}
	first := uint16(defaultFirstPort)
	if c.host.Running != nil {
		first = c.host.Running.FirstUnprivilegedPort()
		if c.checkOwner(addr); c.blocked != nil {
			return
		}
	}
	if addr.Port() < first || c.want.AllowUnprivilegedPort || c.host.Journal.AllowUnprivilegedPort {
		c.out.allowPort = addr.Port() >= first && c.want.AllowUnprivilegedPort
		return
	}
	risk := problem.Problem{
		Code: "port-unprivileged", Path: c.want.Mirror,
		Text: fmt.Sprintf("any user can listen at port %d while sidemirror does not, and engines would trust that user: only ports below %d are reserved for root", addr.Port(), first),
		Hint: portowner.Hint(first) + "; or allow it: sidemirror apply --allow-unprivileged-port",
	}
	if c.host.Running == nil {
		c.out.Notes = append(c.out.Notes, &risk)
		return
	}
	c.blocked = &risk
}

// defaultFirstPort is the kernel's lowest port that every user can listen at.
const defaultFirstPort = 1024

// checkOwner looks who listens at an address. Engines that would reach another user's process have
// their entries removed.
func (c *composer) checkOwner(addr netip.AddrPort) {
	owner, err := c.host.Running.Owner(addr)
	switch {
	case err != nil: // nothing follows from it
	case !owner.Found:
		c.out.Notes = append(c.out.Notes, &problem.Problem{
			Code: "proxy-not-listening", Path: c.want.Mirror, Text: "no process listens here: until one does, engines use the registries directly",
			Hint: "systemctl start sidemirror",
		})
	case !owner.Trusted:
		c.foreign = true
		c.blocked = &problem.Problem{
			Code: "proxy-port-taken", Path: c.want.Mirror, Text: fmt.Sprintf("a process of user %s listens here, and engines would trust it: no engine is pointed at it", owner.Name),
			Hint: fmt.Sprintf("find and end it: ss -ltnp sport = %d", addr.Port()),
		}
	}
}

// mirrorAddr returns the address of a URL of a mirror.
func mirrorAddr(mirror string) (netip.AddrPort, error) {
	u, err := url.Parse(mirror)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(u.Host)
}
