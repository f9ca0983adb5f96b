// Package listener opens the addresses that sidemirror serves and limits what comes in over
// them: the number of connections, how slowly one may read, and the headers of requests.
package listener

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// Limits of a request.
const (
	headerTimeout = 5 * time.Second
	idleTimeout   = 2 * time.Minute

	// maxHeader is 32 KiB: net/http reads 4096 bytes more than it is configured to.
	maxHeader = 32<<10 - 4096

	// writeStall is how long a client may read nothing before its connection is closed.
	writeStall = 60 * time.Second
)

// NewServer returns a server for the connections of Limit: HTTP/1.1, with limits on the
// headers of a request and on the time that they take.
func NewServer(handler http.Handler) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           handler,
		Protocols:         &protocols,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		// The handler refuses "OPTIONS *" as it refuses other requests.
		DisableGeneralOptionsHandler: true,
	}
}

// Limit returns a listener that accepts from l the connections that limiter has a slot for,
// and closes the others at once, so that an engine falls back to the registry.
func Limit(l *net.TCPListener, limiter *Limiter) net.Listener {
	return limitedListener{TCPListener: l, limiter: limiter, stall: writeStall}
}

type limitedListener struct {
	*net.TCPListener
	limiter *Limiter
	stall   time.Duration
}

// Accept implements [net.Listener].
func (l limitedListener) Accept() (net.Conn, error) {
	for {
		tcp, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		if slot := l.limiter.acquire(tcp); slot != nil {
			return newLimitedConn(tcp, l.stall, slot), nil
		}
		_ = tcp.Close()
	}
}

// Open listens on addr. The error says who has the address if it is taken.
func Open(ctx context.Context, addr netip.AddrPort) (*net.TCPListener, error) {
	network := "tcp6" // not IPv4 too: to serve both, the configuration lists 0.0.0.0 as well
	if addr.Addr().Is4() {
		network = "tcp4"
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network, addr.String())
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listening on %v: the address is taken%s; end that process, or change listen: %w", addr, ownerOf(addr), err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listening on %v: this host has no such address; see \"ip address\", or change listen: %w", addr, err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listening on %v: ports below 1024 need CAP_NET_BIND_SERVICE; use another port, or let systemd hand the socket over: %w", addr, err)
	case err != nil:
		return nil, fmt.Errorf("listening on %v: %w", addr, err)
	}
	return l.(*net.TCPListener), nil
}
