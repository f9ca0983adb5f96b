package daemon

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/resolvconf"
)

const maxResolvConf = 64 << 10

// nameServers finds out whether the service may reach the host's name servers. The unit denies
// link-local addresses, where metadata servers hand out credentials. On some clouds a name
// server has the same address: without it no registry is found, and no pull goes through
// sidemirror.
type nameServers struct {
	file  string                     // resolvconf.Path if empty
	reach func(netip.AddrPort) error // EPERM if the unit denies the address; nil: sendNothing

	mu    sync.Mutex
	state string           // of the file, when it was last read
	found *problem.Problem // nil: none
}

// problem returns which name server is denied, and the fix; nil if none is. It logs a new problem, and
// looks again only when the file has changed.
func (r *nameServers) problem(log *logrus.Logger) *problem.Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := r.file
	if name == "" {
		name = resolvconf.Path
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil
	}
	state := fmt.Sprint(info.Size(), info.ModTime())
	if state == r.state {
		return r.found
	}
	before := r.found
	r.state, r.found = state, r.denied(linkLocalServers(name))
	if r.found != nil && (before == nil || r.found.Text != before.Text) {
		log.WithField("hint", r.found.Hint).Warn(r.found.Text)
	}
	return r.found
}

func (r *nameServers) denied(servers []netip.Addr) *problem.Problem {
	reach := r.reach
	if reach == nil {
		reach = sendNothing
	}
	for _, server := range servers {
		if errors.Is(reach(netip.AddrPortFrom(server, 53)), syscall.EPERM) {
			return &problem.Problem{
				Code: "name-server-denied",
				Text: fmt.Sprintf("this service may not reach the name server %v (IPAddressDeny=), so it finds no registry", server),
				Hint: "sudo sidemirror apply allows it; see docs/security.md",
			}
		}
	}
	return nil
}

// sendNothing sends an empty datagram, which name servers ignore.
func sendNothing(server netip.AddrPort) error {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(nil)
	return err
}

// linkLocalServers returns the link-local name servers of a resolv.conf(5).
func linkLocalServers(name string) []netip.Addr {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxResolvConf))
	if err != nil {
		return nil
	}
	return resolvconf.LinkLocal(data)
}
