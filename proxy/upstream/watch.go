package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/sidemirror/sidemirror/proxy/auth"
)

// watched sends requests and records in a health whether the server could be reached.
type watched struct {
	transport http.RoundTripper
	health    *health
	probe     bool // every failure counts

	// silence, if not nil, is called when the server took the request and sent no
	// response header in time.
	silence func()
}

// RoundTrip implements [http.RoundTripper].
func (w watched) RoundTrip(req *http.Request) (*http.Response, error) {
	started := time.Now()
	var connected atomic.Bool
	trace := &httptrace.ClientTrace{
		// A request that finds its connection closed is sent again on another one.
		GetConn: func(string) { connected.Store(false) },
		GotConn: func(httptrace.GotConnInfo) {
			connected.Store(true)
			w.health.connected()
		},
	}
	resp, err := w.transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	switch {
	case err == nil:
		w.health.answered()
	case errors.Is(req.Context().Err(), context.Canceled):
	case !connected.Load(), w.probe, isTimeout(err) && w.health.isSilent():
		w.health.failed(unreachable(req.URL.Host, err), started, connected.Load())
	case isTimeout(err) && req.Context().Err() == nil && w.silence != nil:
		w.silence()
	}
	return resp, err
}

func isTimeout(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

// toRealm sends a request of c to a token server: over c's own connections if it is the
// upstream itself, and else over connections without a client certificate. A
// token server that could not be reached a moment ago is not asked.
func (u *Upstream) toRealm(c *client, req *http.Request) (*http.Response, error) {
	if sameOrigin(req.URL, u.url) {
		return c.watched.RoundTrip(req)
	}
	end, ok := u.realmHealth.admit(req.Context(), false)
	defer end()
	if !ok {
		return nil, errors.New("it could not be reached a moment ago and is not tried again yet")
	}
	return watched{transport: u.realm, health: &u.realmHealth}.RoundTrip(req)
}

// suspect probes the upstream in the background after a request got no response in
// time: if the probe gets none either, the upstream counts as out of reach.
func (u *Upstream) suspect() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed || u.probing {
		return
	}
	u.probing = true
	u.background.Go(func() {
		u.probe()
		u.mu.Lock()
		u.probing = false
		u.mu.Unlock()
	})
}

// probe asks for /v2/ without authorization. Any response will do.
func (u *Upstream) probe() {
	ctx, cancel := context.WithTimeout(u.life, probeTimeout)
	defer cancel()
	req := newRequest(ctx, http.MethodGet, auth.Join(u.url, "/v2/"), nil, u.userAgent)
	if resp, err := (watched{transport: u.own.transport, health: &u.health, probe: true}).RoundTrip(req); err == nil {
		drain(resp)
	}
}
