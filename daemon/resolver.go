package daemon

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/sirupsen/logrus"
)

const (
	resolvConf    = "/etc/resolv.conf"
	maxResolvConf = 64 << 10
	maxServers    = 3 // MAXNS of resolv.conf(5)
)

// resolver knows whether the host's name servers are kept from us. The unit denies
// link-local addresses, at which metadata servers give credentials away, and on some clouds
// the same address is the name server's: without it no registry is found, and every pull goes past us.
type resolver struct {
	file  string                     // resolvConf if empty
	reach func(netip.AddrPort) error // an error of EPERM is what the unit denies; nil: by a datagram

	mu    sync.Mutex
	state string // of the file, when it was last read
	amiss string
}

// trouble says which name server is kept from us, and the mend, to log too when that is
// new. It asks again only when the file has changed.
func (r *resolver) trouble(log *logrus.Logger) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := r.file
	if name == "" {
		name = resolvConf
	}
	info, err := os.Stat(name)
	if err != nil {
		return ""
	}
	state := fmt.Sprint(info.Size(), info.ModTime())
	if state == r.state {
		return r.amiss
	}
	before := r.amiss
	r.state, r.amiss = state, r.denied(linkLocalServers(name))
	if r.amiss != "" && r.amiss != before {
		log.Warn(r.amiss)
	}
	return r.amiss
}

func (r *resolver) denied(servers []netip.Addr) string {
	reach := r.reach
	if reach == nil {
		reach = sendNothing
	}
	for _, server := range servers {
		if errors.Is(reach(netip.AddrPortFrom(server, 53)), syscall.EPERM) {
			return fmt.Sprintf("the name server %v is kept from this service (IPAddressDeny=), so that no registry is found: systemctl edit sidemirror, [Service] IPAddressAllow=%v; see docs/security.md", server, server.WithZone(""))
		}
	}
	return ""
}

// sendNothing sends an empty datagram, which name servers pass over.
func sendNothing(server netip.AddrPort) error {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(nil)
	return err
}

// linkLocalServers are those of a resolv.conf(5).
func linkLocalServers(name string) []netip.Addr {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	var list []netip.Addr
	lines := bufio.NewScanner(io.LimitReader(f, maxResolvConf))
	for servers := 0; servers < maxServers && lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		servers++
		if addr, err := netip.ParseAddr(fields[1]); err == nil && addr.IsLinkLocalUnicast() {
			list = append(list, addr)
		}
	}
	return list
}
