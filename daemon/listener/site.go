package listener

import (
	"net"
	"net/http"
	"time"
)

// maxSite limits the connections of the site, which take no slots of this host's engines.
const maxSite = 4096

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

// NewSiteLimiter returns the Limiter for the connections of a site.
func NewSiteLimiter() *Limiter {
	l := NewLimiter(func(net.Conn) bool { return false })
	l.maxAll, l.maxUntrusted = maxSite, maxSite
	return l
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
	conn, err := l.limitedListener.Accept()
	if err != nil {
		return nil, err
	}
	conn.(*limitedConn).opaque = l.encrypted
	return conn, nil
}
