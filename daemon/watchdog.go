package daemon

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/sidemirror/sidemirror/proxy"
)

// watchdog asks this daemon over its own listener whether it answers, and recognizes its own
// requests by their connection.
type watchdog struct {
	url atomic.Pointer[string] // what it asks for

	own sync.Map // local addresses of its connections, as text
}

// ask makes a request. Every response will do.
func (w *watchdog) ask(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, *w.url.Load(), nil)
	if err != nil {
		return fmt.Errorf("asking for systemd's watchdog: %w", err)
	}
	// A connection of its own each time: accepting is a part of what must work.
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			w.own.Store(c.LocalAddr().String(), nil)
			return &ownConn{Conn: c, closed: func() { w.own.Delete(c.LocalAddr().String()) }}, nil
		},
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("asking for systemd's watchdog: %w", err)
	}
	return resp.Body.Close()
}

// mark returns a handler that leaves the watchdog's own requests out of the access log. A
// header would not do: every client can send it.
func (w *watchdog) mark(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if _, own := w.own.Load(r.RemoteAddr); own {
			r = r.WithContext(proxy.Unlogged(r.Context()))
		}
		next.ServeHTTP(rw, r)
	})
}

// ownConn is a connection of the watchdog.
type ownConn struct {
	net.Conn
	closed func()
}

// Close forgets the address first: afterwards another process may have it.
func (c *ownConn) Close() error {
	c.closed()
	return c.Conn.Close()
}
