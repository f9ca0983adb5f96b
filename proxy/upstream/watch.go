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

	// suspect, if not nil, is called with the time that is left when the server has the
	// request and sends no response header.
	suspect  func(within time.Duration)
	patience time.Duration // how long a response header may take
}

type withinKey struct{}

// Within returns a context for requests whose caller does without the response after d. If
// none comes for a quarter of that, the upstream is probed, so that it is known by then
// whether one request is slow or the upstream answers nothing.
func Within(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, withinKey{}, d)
}

// watch calls w.suspect while a request waits. stop must be called when it does not any more.
func (w watched) watch(ctx context.Context, connected *atomic.Bool) (stop func() bool) {
	if w.suspect == nil {
		return func() bool { return true }
	}
	within := w.patience
	if limit, ok := ctx.Value(headersKey{}).(time.Duration); ok && limit > 0 {
		within = limit
	}
	if own, ok := ctx.Value(withinKey{}).(time.Duration); ok && (within == 0 || own < within) {
		within = own
	}
	if within == 0 {
		return func() bool { return true }
	}
	return time.AfterFunc(within/4, func() {
		if connected.Load() {
			w.suspect(within * 13 / 20)
		}
	}).Stop
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
	stop := w.watch(req.Context(), &connected)
	resp, err := w.transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	stop()
	switch {
	case err == nil:
		w.health.answered()
	case errors.Is(req.Context().Err(), context.Canceled):
	case isSeparate(req.Context()): // the server may take one connection and refuse more
	case !connected.Load(), w.probe, isTimeout(err) && w.health.isSilent():
		w.health.failed(unreachable(req.URL.Host, err), started, connected.Load())
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
	resp, err := u.askRealm(c, req)
	status := 0
	if err == nil {
		status = resp.StatusCode
	}
	u.observer.TokenExchanged(u.label, status)
	return resp, err
}

func (u *Upstream) askRealm(c *client, req *http.Request) (*http.Response, error) {
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

// suspect probes the upstream in the background: if the probe gets no response within the time
// given either, the upstream counts as out of reach.
func (u *Upstream) suspect(within time.Duration) {
	if u.probing.Swap(true) {
		return
	}
	open := u.inBackground(func() {
		defer u.probing.Store(false)
		u.probe(within)
	})
	if !open {
		u.probing.Store(false)
	}
}

// revive probes an upstream that is out of reach in the background, if its back-off is over: no client
// of a registry with several upstreams waits for that.
func (u *Upstream) revive() {
	if u.health.isDue() {
		u.suspect(u.headerOfSeveral)
	}
}

// inBackground runs f, which Close waits for. It reports false if the upstream is closed.
func (u *Upstream) inBackground(f func()) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return false
	}
	u.background.Go(f)
	return true
}

// probe asks for /v2/ without authorization. Any response will do.
func (u *Upstream) probe(within time.Duration) {
	ctx, cancel := context.WithTimeout(u.life, within)
	defer cancel()
	req := newRequest(ctx, http.MethodGet, auth.Join(u.url, "/v2/"), nil, u.userAgent)
	if resp, err := (watched{transport: u.own.connections, health: &u.health, probe: true}).RoundTrip(req); err == nil {
		drain(resp)
	}
}
