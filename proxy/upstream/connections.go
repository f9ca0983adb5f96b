package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

// connections are the connections to one kind of host. Requests share those of shared, also by
// HTTP/2. A separate request has a TCP connection of its own while it is under way.
type connections struct {
	shared, separate *http.Transport
	headers          time.Duration // how long a response header may take
	forward          *ForwardProxy // nil if there is none

	observer   observe.Observer
	upstream   string
	redirected bool // they lead to where the upstream redirects
}

func newConnections(c Config, t *tls.Config, dial dialFunc) connections {
	dial = counted(dial, func(by int) { c.Observer.ConnectionsChanged(c.label(), by) })
	made := connections{
		shared: newTransport(c, t, dial), separate: newTransport(c, t.Clone(), dial), headers: c.Registry.HeaderTimeout,
		forward: c.Forward, observer: c.Observer, upstream: c.label(),
	}
	// HTTP/2 would carry all requests on one connection.
	made.separate.ForceAttemptHTTP2, made.separate.HTTP2 = false, nil
	made.separate.Protocols = new(http.Protocols)
	made.separate.Protocols.SetHTTP1(true)
	return made
}

type separateKey struct{}

// separately returns a context for requests that have a TCP connection of their own.
func separately(ctx context.Context) context.Context {
	return context.WithValue(ctx, separateKey{}, true)
}

func isSeparate(ctx context.Context) bool { return ctx.Value(separateKey{}) != nil }

type ownKey struct{}

// onItsOwn returns a context for a request that has a TCP connection of its own, and of which the
// client needs the response: it is no Separate one.
func onItsOwn(ctx context.Context) context.Context { return context.WithValue(ctx, ownKey{}, true) }

// RoundTrip implements [http.RoundTripper].
func (c connections) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.followed(req)
	e := observe.Exchange{Upstream: c.upstream, Redirected: c.redirected}
	if err == nil {
		e.Status = resp.StatusCode
	} else {
		e.Canceled = errors.Is(req.Context().Err(), context.Canceled)
	}
	c.observer.UpstreamResponded(e)
	return resp, err
}

func (c connections) roundTrip(req *http.Request) (*http.Response, error) {
	limit := c.headers
	if of, ok := req.Context().Value(headersKey{}).(time.Duration); ok {
		limit = of
	}
	t := c.shared
	if isSeparate(req.Context()) || req.Context().Value(ownKey{}) != nil {
		t = c.separate
	}
	if c.forward != nil {
		req = req.WithContext(context.WithValue(req.Context(), dialingKey{}, new(dialing)))
	}
	resp, err := sendTwice(t, req, limit)
	if err != nil {
		return nil, err
	}
	if err := c.forward.check(req, resp); err != nil {
		return nil, err
	}
	return resp, nil
}

// closeIdle closes the connections that no request uses.
func (c connections) closeIdle() {
	c.shared.CloseIdleConnections()
	c.separate.CloseIdleConnections()
}

// counted returns a dial that calls changed when it has made a connection, and when that is closed.
func counted(dial dialFunc, changed func(by int)) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		changed(+1)
		return &countedConn{Conn: c, closed: sync.OnceFunc(func() { changed(-1) })}, nil
	}
}

type countedConn struct {
	net.Conn
	closed func()
}

// Close implements [net.Conn].
func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}
