package listener

import (
	"net"
	"net/http"
	"net/netip"
	"time"
)

const (
	// maxSite limits the connections of the site, which take no slots of this host's engines.
	maxSite = 4096

	// maxOutside and maxPerOutside limit the connections of addresses whose requests are refused, all
	// together and for each of them: they must leave room for visitors who are served.
	maxOutside    = 512
	maxPerOutside = 16
)

// NewSiteServer returns a server for the connections of LimitSite: HTTP/1.1 and, over TLS, HTTP/2, with
// the limits of NewServer.
func NewSiteServer(handler http.Handler) *http.Server {
	server := NewServer(handler)
	server.Protocols.SetHTTP2(true)
	server.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: 100,
		WriteByteTimeout:     writeStall,
		SendPingTimeout:      15 * time.Second,
		PingTimeout:          15 * time.Second,
	}
	return server
}

// A Share function says which addresses share connections with the peer of a connection, how many they
// may have (0: no limit of their own), and whether their requests are refused.
type Share func(peer netip.Addr) (of netip.Prefix, most int, outside bool)

// NewSiteLimiter returns the Limiter for the connections of a site.
func NewSiteLimiter(share Share) *Limiter {
	l := NewLimiter(func(net.Conn) bool { return false })
	l.maxAll, l.share, l.perVisitor = maxSite, share, make(map[netip.Prefix]int)
	return l
}

// acquireVisitor returns a slot for the connection of a visitor, or nil if there is none.
func (l *Limiter) acquireVisitor(c net.Conn, peer netip.Addr) *slot {
	of, most, outside := l.share(peer)
	if outside && (most == 0 || most > maxPerOutside) {
		most = maxPerOutside
	}
	if l.all.Add(1) > l.maxAll {
		l.all.Add(-1)
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if most > 0 && l.perVisitor[of] >= most || outside && l.outside >= maxOutside {
		l.all.Add(-1)
		return nil
	}
	if outside {
		l.outside++
	}
	l.perVisitor[of]++
	s := &slot{limiter: l, conn: c, visitor: of, outside: outside}
	l.addSilent(s)
	return s
}

// releaseVisitor returns the slot of a visitor. l.mu must be locked.
func (l *Limiter) releaseVisitor(s *slot) {
	if s.outside {
		l.outside--
	}
	if l.perVisitor[s.visitor]--; l.perVisitor[s.visitor] == 0 {
		delete(l.perVisitor, s.visitor)
	}
}

// LimitSite returns a listener that accepts from l the connections that limiter has a slot for, and
// closes the others at once. If encrypted is true they carry TLS.
func LimitSite(l *net.TCPListener, limiter *Limiter, encrypted bool) net.Listener {
	return siteListener{limitedListener{TCPListener: l, limiter: limiter, stall: writeStall}, encrypted}
}

type siteListener struct {
	limitedListener
	encrypted bool
}

// Accept implements [net.Listener].
func (l siteListener) Accept() (net.Conn, error) {
	for {
		tcp, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		peer := tcp.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().WithZone("")
		if slot := l.limiter.acquireVisitor(tcp, peer); slot != nil {
			conn := newLimitedConn(tcp, l.stall, slot)
			conn.opaque = l.encrypted
			return conn, nil
		}
		_ = tcp.Close()
	}
}
