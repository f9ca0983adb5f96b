package visitor

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// lookAgain is how old the list of private networks may be.
const lookAgain = 5 * time.Second

// privateNetworks are the private networks that this host is in (RFC 1918 and RFC 4193), as its
// addresses come and go.
type privateNetworks struct {
	addresses func() ([]net.Addr, error)
	now       func() time.Time

	mu    sync.Mutex
	known []netip.Prefix
	at    time.Time
}

func newPrivateNetworks() privateNetworks {
	return privateNetworks{addresses: net.InterfaceAddrs, now: time.Now}
}

// list returns the networks. If they cannot be found out, it returns those that were known before.
func (p *privateNetworks) list() []netip.Prefix {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if !p.at.IsZero() && now.Sub(p.at) < lookAgain {
		return p.known
	}
	p.at = now
	all, err := p.addresses()
	if err != nil {
		return p.known
	}
	p.known = nil
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && prefix.Addr().IsPrivate() {
			p.known = append(p.known, prefix.Masked())
		}
	}
	return p.known
}
