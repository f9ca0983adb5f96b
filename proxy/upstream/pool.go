package upstream

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// Pool is the upstreams of one registry, in the order in which they are asked.
type Pool []*Upstream

// Do asks the upstreams in turn until one sends a response that no other could better: a
// 404, a 429, a 5xx or a failure goes on to the next, a 401 or 403 only if the upstream is optional.
// Each is asked in the identity that as returns for it; if as is nil, in r's own. The response is that
// of the upstream returned with it. If all fail, the last failure that is not a 404 is returned,
// since a 404 counts only if every upstream says it; [Away] tells for which of them. The failure of
// an optional upstream counts only if no other one says anything.
//
// If an upstream is later than it usually is, the next one is asked as well, and the first good
// response counts. One that is slower than the next one is skipped for a while. A Read of a blob's body
// fails with a [*SkippedError] if the upstream turns out to send it more slowly than the next one would.
func (p Pool) Do(ctx context.Context, r Request, as func(*Upstream) Identity) (*http.Response, *Upstream, error) {
	q := &query{Request: r, as: as, turns: newTurns(ctx, p, r.Patient), started: time.Now()}
	q.tryAgain()
	for u, end, ok := q.turns.next(); ok; u, end, ok = q.turns.next() {
		attempts := q.ask(ctx, u, end)
		for i, a := range attempts {
			final := q.settle(a)
			if !final && !(a.err != nil && ctx.Err() != nil) {
				continue
			}
			discardMissing(q.missing)
			for _, rest := range attempts[i+1:] {
				rest.discard()
			}
			if final {
				return a.resp, a.upstream, nil
			}
			return nil, a.upstream, q.failed.whole()
		}
	}
	return q.result()
}

// query is a request to a pool that is under way.
type query struct {
	Request
	as      func(*Upstream) Identity
	turns   *turns
	started time.Time

	missing  *http.Response // the last 404
	missedBy *Upstream
	failed   poolError
}

// requestTo returns the request as u gets it.
func (q *query) requestTo(u *Upstream) Request {
	r := q.Request
	// One that did not respond lately gets no more time than if others were still to be asked.
	r.others, r.elapsed = q.turns.more() || u.pace.skipped() == skipSilent, time.Since(q.started)
	if q.as != nil {
		r.Identity = q.as(u)
	}
	if len(q.turns.pool)+len(q.Others) > 1 && r.blob() != "" {
		r.rival = q.rivalOf(u)
	}
	return r
}

// settle notes the outcome of an attempt. It reports whether the response is the one to return.
func (q *query) settle(a *attempt) (final bool) {
	switch {
	case a.err != nil:
		q.failed.add(a.upstream, a.err)
	case a.resp.StatusCode == http.StatusNotFound:
		discardMissing(q.missing)
		q.missing, q.missedBy = a.resp, a.upstream
		q.failed.without = append(q.failed.without, a.upstream.Name())
	default:
		return true
	}
	return false
}

// result returns what is known when all upstreams that may be asked were asked and none has what is
// wanted. What one of the others has is not known, so that a 404 does not count then.
func (q *query) result() (*http.Response, *Upstream, error) {
	failed := &q.failed
	if left := q.turns.left(); failed.last == nil && len(left) > 0 {
		failed.last = left.notTried()
	}
	if failed.last == nil && q.missing != nil {
		return q.missing, q.missedBy, nil
	}
	discardMissing(q.missing)
	if failed.whole().last == nil {
		failed.last = q.turns.pool.notTried()
	}
	return nil, failed.from, failed
}

func discardMissing(resp *http.Response) {
	if resp != nil {
		drain(resp)
	}
}

// Relay asks the token server of the first upstream that can be reached, see
// [Upstream.Relay]. The upstream is returned with the response.
func (p Pool) Relay(ctx context.Context, in auth.TokenRequest, as func(*Upstream) Identity) (*auth.Relayed, *Upstream, error) {
	var err error
	turns := newTurns(ctx, p, true)
	for u, end, ok := turns.next(); ok; u, end, ok = turns.next() {
		var relayed *auth.Relayed
		relayed, err = u.Relay(ctx, in, as(u))
		end()
		if !OutOfReach(err) {
			return relayed, u, err
		}
	}
	return nil, nil, err
}

// notTried returns the error for upstreams that were not asked.
func (p Pool) notTried() error {
	return &oci.Error{Code: oci.Unavailable, Message: p.hosts() + " could not be reached a moment ago and is not tried again yet"}
}

func (p Pool) hosts() string {
	hosts := make([]string, len(p))
	for i, u := range p {
		hosts[i] = u.Host()
	}
	return strings.Join(hosts, ", ")
}

// Close closes every upstream of the pool.
func (p Pool) Close() {
	for _, u := range p {
		u.Close()
	}
}

// Without returns the pool without u, for asking the others.
func (p Pool) Without(u *Upstream) Pool {
	return slices.DeleteFunc(slices.Clone(p), func(other *Upstream) bool { return other == u })
}
