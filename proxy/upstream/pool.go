package upstream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// Pool is the upstreams of one registry, in the order in which they are asked.
type Pool []*Upstream

// Do asks the upstreams in turn until one sends a response that no other could better: a
// 404, a 429, a 5xx or a failure goes on to the next, a 401 or 403 does not. The response
// is that of the upstream returned with it. If all fail, the last failure that is not a
// 404 is returned, since a 404 counts only if every upstream says it.
func (p Pool) Do(ctx context.Context, r Request) (*http.Response, *Upstream, error) {
	var missing *http.Response
	var missedBy *Upstream
	var failed error
	for u, end := range p.admitted(ctx, r.Patient) {
		resp, err := u.Do(ctx, r)
		end()
		switch {
		case err != nil:
			failed = err
			if ctx.Err() != nil {
				return nil, u, err
			}
		case resp.StatusCode == http.StatusNotFound:
			if missing != nil {
				drain(missing)
			}
			missing, missedBy = resp, u
		case resp.StatusCode >= 500:
			drain(resp)
			failed = &oci.Error{
				Code: oci.Unavailable, Upstream: resp.StatusCode,
				Message: fmt.Sprintf("%s answered %d", u.Host(), resp.StatusCode),
			}
		default:
			if missing != nil {
				drain(missing)
			}
			return resp, u, nil
		}
	}
	if failed == nil && missing == nil {
		failed = &oci.Error{Code: oci.Unavailable, Message: p.hosts() + " could not be reached a moment ago and is not tried again yet"}
	}
	if failed != nil {
		if missing != nil {
			drain(missing)
		}
		return nil, nil, failed
	}
	return missing, missedBy, nil
}

// Relay asks the token server of the first upstream that can be reached, see
// [Upstream.Relay]. The upstream is returned with the response.
func (p Pool) Relay(ctx context.Context, in auth.TokenRequest) (*auth.Relayed, *Upstream, error) {
	var err error
	for u, end := range p.admitted(ctx, true) {
		var relayed *auth.Relayed
		relayed, err = u.Relay(ctx, in)
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
