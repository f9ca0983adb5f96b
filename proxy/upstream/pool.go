package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// Pool is the upstreams of one registry, in the order they are to be asked.
type Pool []*Upstream

// Do asks the upstreams in turn until one gives an answer that another would not
// better: a 404, a 429, a 5xx or no answer go on to the next, a 401 or 403 does not.
// The answer is of the upstream returned with it. Where all fail the last failure
// that is not a 404 is returned, since a 404 is believed only if everybody says it.
func (p Pool) Do(ctx context.Context, r Request) (*http.Response, *Upstream, error) {
	var missing *http.Response
	var missedBy *Upstream
	var failed error
	for _, u := range p.order(r.Patient) {
		resp, err := u.Do(ctx, r)
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
			failed = &oci.Error{Code: oci.Unavailable, Upstream: resp.StatusCode, Message: fmt.Sprintf("%s answers %d", u.Host(), resp.StatusCode)}
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
// [Upstream.Relay]. The upstream is returned with the answer.
func (p Pool) Relay(ctx context.Context, in auth.TokenRequest) (*auth.Relayed, *Upstream, error) {
	var err error
	var relayed *auth.Relayed
	for _, u := range p.order(true) {
		if relayed, err = u.Relay(ctx, in); !OutOfReach(err) {
			return relayed, u, err
		}
	}
	return nil, nil, err
}

// order gives the upstreams as they are to be asked now. Those that were out of
// reach a moment ago are left out, so that an engine that has its own way on takes
// it at once, or come last where the client is patient.
func (p Pool) order(patient bool) []*Upstream {
	type ranked struct {
		u    *Upstream
		rank int
	}
	all := make([]ranked, 0, len(p))
	for _, u := range p {
		if rank := u.health.rank(); rank < 2 || patient {
			all = append(all, ranked{u, rank})
		}
	}
	slices.SortStableFunc(all, func(a, b ranked) int { return a.rank - b.rank })
	us := make([]*Upstream, len(all))
	for i, r := range all {
		us[i] = r.u
	}
	return us
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

// Without gives the pool less one upstream, for asking the others.
func (p Pool) Without(u *Upstream) Pool {
	return slices.DeleteFunc(slices.Clone(p), func(other *Upstream) bool { return other == u })
}

// OutOfReach reports whether err says that an upstream could not be asked, and
// nothing of what it would have answered.
func OutOfReach(err error) bool {
	return errors.Is(err, &oci.Error{Code: oci.Unavailable})
}
