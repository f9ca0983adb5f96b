package proxy

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/proxy/access"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// accepts reports whether the client accepts a Content-Type, whatever its parameters.
func (r *request) accepts(contentType string) bool {
	t := oci.MediaType(contentType)
	kind, _, _ := strings.Cut(t, "/")
	return slices.ContainsFunc(r.accept(), func(a string) bool { return a == t || a == "*/*" || a == kind+"/*" })
}

// accept returns the media types that the client accepts, without their parameters.
func (r *request) accept() []string {
	var all []string
	for _, v := range r.http.Header.Values("Accept") {
		for t := range strings.SplitSeq(v, ",") {
			t, _, _ = strings.Cut(t, ";")
			all = append(all, strings.ToLower(strings.TrimSpace(t)))
		}
	}
	if len(all) == 0 || len(all) == 1 && all[0] == "*/*" {
		return oci.ManifestTypes()
	}
	return all
}

// upstreamAccept returns the media types that an upstream is asked for: those that sidemirror
// knows and the client accepts.
func (r *request) upstreamAccept() []string {
	wanted := r.accept()
	var known []string
	for _, t := range append(oci.ManifestTypes(), artifactManifests...) {
		if slices.Contains(wanted, t) {
			known = append(known, t)
		}
	}
	if slices.Contains(wanted, "*/*") || slices.Contains(wanted, "application/*") {
		known = append(known, "*/*")
	}
	if len(known) == 0 {
		return oci.ManifestTypes()
	}
	return known
}

// artifactManifests are manifests of earlier drafts, which some registries hold.
var artifactManifests = []string{
	"application/vnd.oci.artifact.manifest.v1+json",
	"application/vnd.cncf.oras.artifact.manifest.v1+json",
}

// fetchManifest fetches what r asks for. An upstream whose bytes are wrong is passed over for
// the next. The upstream returned is the one that responded, also with some errors.
func (r *request) fetchManifest(ctx context.Context, l *accessLine, how manifestQuery) (*manifest, *upstream.Upstream, error) {
	if r.quota != nil && how.method == http.MethodGet {
		if m, u, err, done := r.fetchLent(ctx, l, how); done {
			return m, u, err
		}
	}
	q := r.query(how.method)
	if how.impatient {
		q.Patient, q.HeaderTimeout = false, 0
	}
	get := manifestQuery{method: http.MethodGet, impatient: how.impatient}
	pool := r.registry.pool
	for {
		asked := time.Now()
		resp, u, err := r.ask(ctx, l, pool, q)
		if how.method == http.MethodHead && r.headFailed(err) {
			return r.fetchManifest(ctx, l, get)
		}
		if err != nil {
			r.refute(u, err)
			return nil, u, err
		}
		resp.Body = r.memory.Reader(resp.Body)
		m, err := readManifest(resp, how.method, r.Digest)
		if errors.Is(err, access.ErrNoMemory) {
			return nil, u, busy(err)
		}
		if err == nil && m == nil {
			return r.fetchManifest(ctx, l, get)
		}
		if err == nil {
			m.from, m.at = u, asked
			r.prove(m)
			return m, u, nil
		}
		if pool = pool.Without(u); len(pool) == 0 {
			return nil, u, &oci.Error{Code: oci.ManifestInvalid, Status: http.StatusBadGateway, Message: u.Host() + " sent " + err.Error()}
		}
	}
}
