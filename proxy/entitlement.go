package proxy

import (
	"time"

	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// learned says how the caller of r knows what the upstream said then. A grant that is made at the
// same time or later covers it.
func (r *request) learned(u *upstream.Upstream, at time.Time) cache.Learned {
	return cache.Learned{
		Upstream:  u.Name(),
		By:        r.caller.At(u.Name()).Recorded(),
		Since:     at,
		Untrusted: !r.caller.Trusted,
	}
}

// allow records that an upstream has given the caller validated content, for which it was asked at that
// time.
func (p *Proxy) allow(r *request, u *upstream.Upstream, asked time.Time) {
	if p.cache != nil {
		p.grants.Allow(r.caller, r.repository(), u.Name(), asked)
	}
}

// holdsBlob records that an upstream has given the caller the blob, to the last byte, or has
// described it as it is stored. asked is when the upstream was asked.
func (p *Proxy) holdsBlob(r *request, u *upstream.Upstream, asked time.Time) {
	if p.cache == nil {
		return
	}
	p.allow(r, u, asked)
	_ = p.cache.HoldBlob(r.repository(), r.Digest, r.learned(u, asked)) // a lost record is asked for again
}

// noteRefusal takes away the caller's grants at those upstreams that have refused it.
func (p *Proxy) noteRefusal(r *request, u *upstream.Upstream, err error) {
	if err != nil {
		r.refute(u, err)
	}
	if p.cache == nil || err == nil {
		return
	}
	refusals := r.registry.pool.Refusals(err)
	if e := oci.AsError(err); u != nil && (e.Code == oci.Unauthorized || e.Code == oci.Denied) {
		refusals = append(refusals, u)
	}
	for _, refusing := range refusals {
		p.grants.Revoke(r.caller, r.repository(), refusing.Name())
	}
}

// may returns the first of what is known that the caller may have without asking; nil if
// none.
func (p *Proxy) may(r *request, known []cache.Holding) *cache.Holding {
	for i := range known {
		if p.grants.May(r.caller, r.repository(), known[i].Learned) {
			return &known[i]
		}
	}
	return nil
}

// mayWhileAway returns the first of what is known that the caller may have, given that it has
// just asked and got err; nil if none.
func (p *Proxy) mayWhileAway(r *request, known []cache.Holding, err error) *cache.Holding {
	for i := range known {
		if p.awayAllows(r, known[i].Learned, err) {
			return &known[i]
		}
	}
	return nil
}

// awayAllows reports whether the upstream that something was learned from is away, and
// allowed the caller content of the repository before.
func (p *Proxy) awayAllows(r *request, known cache.Learned, err error) bool {
	return upstream.Away(err, known.Upstream) && p.grants.MayWhileAway(r.caller, r.repository(), known)
}
