package proxy

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sidemirror/sidemirror/proxy/access"
	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// quotaFor returns the quota that a request may use: that of a guest or of a visitor of the site, for a
// registry whose login is lent to them.
func (p *Proxy) quotaFor(r *http.Request, registry string, caller access.Caller) *access.Quota {
	var q *access.Quota
	switch ctx := r.Context(); {
	case access.IsSite(ctx):
		q = p.siteQuota
	case access.IsGuest(ctx):
		q = p.guestQuota
	}
	if !q.Lends(caller, registry) {
		return nil
	}
	return q
}

// fetchLent fetches a manifest for another host with the daemon's login, after the upstream has shown the
// same manifest without one. HEAD counts against no limit on pulls, and GET counts against that of the
// login. done is false if no login could be used: then the caller is served as without a quota.
func (r *request) fetchLent(ctx context.Context, l *accessLine, how manifestQuery) (m *manifest, u *upstream.Upstream, err error, done bool) {
	anonymous := *r
	anonymous.quota = nil
	dgst := r.Digest
	u, proved := r.provedAt()
	if u == nil {
		m, u, err = anonymous.fetchManifest(ctx, l, manifestQuery{method: http.MethodHead, impatient: how.impatient})
		if err != nil {
			r.refute(u, err)
			return nil, u, err, true
		}
		r.prove(m)
		if m.body != nil {
			return m, u, nil, true
		}
		dgst, proved = m.digest, m.at
	}
	login := r.quota.Login(ctx, r.registry.access(u), r.Repository, dgst)
	if login.IsZero() {
		return nil, nil, nil, false
	}
	anonymous.Digest, anonymous.Tag = dgst, ""
	q := anonymous.query(http.MethodGet)
	q.Patient, q.HeaderTimeout = false, 0 // it can be asked for without the login
	resp, _, err := upstream.Pool{u}.Do(ctx, q, func(*upstream.Upstream) upstream.Identity {
		return upstream.Identity{Access: &auth.Access{Repository: r.Repository, Credential: login}}
	})
	if errors.Is(err, &oci.Error{Code: oci.TooManyRequests}) {
		r.quota.Spent(r.registry.access(u), 0, 0)
	}
	if err != nil {
		return nil, nil, nil, false
	}
	defer resp.Body.Close()
	if limit, ok := upstream.RateLimitOf(resp, time.Now()); ok {
		r.quota.Spent(r.registry.access(u), limit.Remaining, limit.Limit)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, nil, nil, false
	}
	resp.Body = r.memory.Reader(resp.Body)
	found, err := readManifest(resp, http.MethodGet, dgst)
	if err != nil {
		return nil, nil, nil, false
	}
	if m != nil {
		found.warning = m.warning
	}
	l.answeredBy(u)
	l.credential = login.Generation
	// What the login may have says nothing about the caller, who has only the proof.
	found.from, found.at = u, proved
	return found, u, nil, true
}

// provedAt returns the upstream that has shown r's manifest to a caller without a login, and when it
// was asked; nil if it is not known to have done so, or if r asks for a tag, which may mean another
// one now.
func (r *request) provedAt() (*upstream.Upstream, time.Time) {
	if r.Digest == "" {
		return nil, time.Time{}
	}
	for i, u := range r.registry.upstreams {
		if asked, ok := r.quota.Proved(u, r.Repository, r.Digest); ok {
			return r.registry.pool[i], asked
		}
	}
	return nil, time.Time{}
}

// prove records that an upstream has shown m to r's caller, who has no login.
func (r *request) prove(m *manifest) {
	if r.quota != nil {
		r.quota.Prove(r.registry.access(m.from), r.Repository, m.digest, m.at)
	}
}

// refute records that an upstream has refused r's caller, who has no login.
func (r *request) refute(u *upstream.Upstream, err error) {
	if r.quota == nil || u == nil {
		return
	}
	switch oci.AsError(err).Code {
	case oci.Unauthorized, oci.Denied, oci.NameUnknown, oci.ManifestUnknown:
		r.quota.Refute(r.registry.access(u), r.Repository)
	}
}
