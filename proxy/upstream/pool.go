package upstream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"time"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// Pool is the upstreams of one registry, in the order in which they are asked.
type Pool []*Upstream

// Do asks the upstreams in turn until one sends a response that no other could better: a
// 404, a 429, a 5xx or a failure goes on to the next, a 401 or 403 does not. Each is asked in
// the identity that as returns for it; if as is nil, in r's own. The response is that of the
// upstream returned with it. If all fail, the last failure that is not a 404 is returned,
// since a 404 counts only if every upstream says it; [Away] tells for which of them.
func (p Pool) Do(ctx context.Context, r Request, as func(*Upstream) Identity) (*http.Response, *Upstream, error) {
	var missing *http.Response
	var missedBy *Upstream
	failed := &poolError{}
	started := time.Now()
	for u, end := range p.admitted(ctx, r.Patient) {
		r.others, r.elapsed = u != p[len(p)-1], time.Since(started)
		if as != nil {
			r.Identity = as(u)
		}
		//nolint:bodyclose // the caller, ReadRefusal or discardMissing closes it
		resp, err := u.Do(ctx, r)
		end()
		switch {
		case err != nil:
			failed.add(u, err)
			if ctx.Err() != nil {
				discardMissing(missing)
				return nil, u, failed
			}
		case resp.StatusCode == http.StatusNotFound:
			discardMissing(missing)
			missing, missedBy = resp, u
			failed.without = append(failed.without, u.Name())
		case resp.StatusCode >= 500:
			e := &oci.Error{
				Code: oci.Unavailable, Upstream: resp.StatusCode,
				Message: fmt.Sprintf("%s answered %d", u.Host(), resp.StatusCode),
			}
			e.ReadRefusal(resp)
			failed.add(u, e)
		default:
			discardMissing(missing)
			return resp, u, nil
		}
	}
	if failed.last == nil && missing == nil {
		failed.last = &oci.Error{Code: oci.Unavailable, Message: p.hosts() + " could not be reached a moment ago and is not tried again yet"}
	}
	if failed.last != nil {
		discardMissing(missing)
		return nil, failed.from, failed
	}
	return missing, missedBy, nil
}

func discardMissing(resp *http.Response) {
	if resp != nil {
		drain(resp)
	}
}

// poolError is the failure of a pool: the last one, and what became of each upstream.
type poolError struct {
	last    error
	from    *Upstream
	failed  map[string]error // by upstream
	without []string         // those that answered 404
}

func (e *poolError) add(u *Upstream, err error) {
	if e.failed == nil {
		e.failed = map[string]error{}
	}
	e.failed[u.Name()], e.last, e.from = err, err, u
}

func (e *poolError) Error() string { return e.last.Error() }

func (e *poolError) Unwrap() error { return e.last }

// Away reports whether err says that the upstream of that name could not answer the caller
// that was asking. It says nothing for another caller.
func Away(err error, name string) bool {
	e, ok := errors.AsType[*poolError](err)
	if !ok {
		return oci.Away(err)
	}
	if failed := e.failed[name]; failed != nil {
		return oci.Away(failed)
	}
	return !slices.Contains(e.without, name) // it was not asked
}

// Refusals returns the upstreams that refused the caller that was asking.
func (p Pool) Refusals(err error) []*Upstream {
	e, ok := errors.AsType[*poolError](err)
	if !ok {
		return nil
	}
	var all []*Upstream
	for _, u := range p {
		if code := codeOf(e.failed[u.Name()]); code == oci.Unauthorized || code == oci.Denied {
			all = append(all, u)
		}
	}
	return all
}

func codeOf(err error) oci.Code {
	if e, ok := errors.AsType[*oci.Error](err); ok {
		return e.Code
	}
	return ""
}

// Relay asks the token server of the first upstream that can be reached, see
// [Upstream.Relay]. The upstream is returned with the response.
func (p Pool) Relay(ctx context.Context, in auth.TokenRequest, as func(*Upstream) Identity) (*auth.Relayed, *Upstream, error) {
	var err error
	for u, end := range p.admitted(ctx, true) {
		var relayed *auth.Relayed
		relayed, err = u.Relay(ctx, in, as(u))
		end()
		if !OutOfReach(err) {
			return relayed, u, err
		}
	}
	return nil, nil, err
}

// admitted yields the upstreams that may be asked now, each with a function to call when
// it has been asked. Those that were out of reach a moment ago are left out, so that an
// engine falls back to the registry at once. For a patient client, which cannot fall
// back, they come last.
func (p Pool) admitted(ctx context.Context, patient bool) iter.Seq2[*Upstream, func()] {
	return func(yield func(*Upstream, func()) bool) {
		var refused Pool
		for _, u := range p {
			end, ok := u.health.admit(ctx, patient && len(p) == 1)
			if !ok {
				refused = append(refused, u)
			} else if !yield(u, end) {
				return
			}
		}
		for _, u := range refused {
			if !patient {
				return
			}
			if end, _ := u.health.admit(ctx, true); !yield(u, end) {
				return
			}
		}
	}
}

func (p Pool) hosts() string {
	text := ""
	for i, u := range p {
		if i > 0 {
			text += ", "
		}
		text += u.Host()
	}
	return text
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

// OutOfReach reports whether err says only that an upstream could not be asked.
func OutOfReach(err error) bool {
	return errors.Is(err, &oci.Error{Code: oci.Unavailable})
}
