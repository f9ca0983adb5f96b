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

	"github.com/sidemirror/sidemirror/internal/problem"
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

// Open listens on addr. The error is a [*problem.Problem] that says who has the address if it is taken.
func Open(ctx context.Context, addr netip.AddrPort) (*net.TCPListener, error) {
	network := "tcp6" // not IPv4 too: to serve both, the configuration lists 0.0.0.0 as well
	if addr.Addr().Is4() {
		network = "tcp4"
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network, addr.String())
	if err != nil {
		why, hint := err, ""
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			why, hint = &openError{"the address is taken" + ownerOf(addr), err}, "end that process, or change listen"
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			why, hint = &openError{"this host has no such address", err}, `see which it has, with "ip address", or change listen`
		case errors.Is(err, syscall.EACCES):
			why, hint = &openError{"ports below 1024 need CAP_NET_BIND_SERVICE", err}, "run as root, use another port, or let systemd hand the socket over"
		}
		return nil, &problem.Problem{Code: "listen-unavailable", Text: fmt.Sprintf("listening on %v", addr), Err: why, Hint: hint}
	}
	return l.(*net.TCPListener), nil
}

// openError is why an address cannot be opened, in the words of this program.
type openError struct {
	text string
	err  error // the system's
}

func (e *openError) Error() string { return e.text }
func (e *openError) Unwrap() error { return e.err }
