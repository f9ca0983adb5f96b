package proxy

import (
	"context"
	"net/http"
	"slices"
	"strings"

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

// fetchManifest fetches what r asks for. An upstream whose bytes are wrong is passed over for
// the next. The upstream returned is the one that responded, also with some errors.
func (r *request) fetchManifest(ctx context.Context, l *accessLine, how manifestQuery) (*manifest, *upstream.Upstream, error) {
	q := r.query(how.method)
	if how.impatient {
		q.Patient = false
	}
	if accept := q.Header.Get("Accept"); accept == "" || accept == "*/*" {
		q.Header.Set("Accept", strings.Join(oci.ManifestTypes(), ", "))
	}
	get := manifestQuery{method: http.MethodGet, impatient: how.impatient}
	pool := r.registry.pool
	for {
		resp, u, err := r.ask(ctx, l, pool, q)
		if how.method == http.MethodHead && r.headFailed(err) {
			return r.fetchManifest(ctx, l, get)
		}
		if err != nil {
			return nil, u, err
		}
		m, err := readManifest(resp, how.method, r.Digest)
		if err == nil && m == nil {
			return r.fetchManifest(ctx, l, get)
		}
		if err == nil {
			m.from = u
			return m, u, nil
		}
		if pool = pool.Without(u); len(pool) == 0 {
			return nil, u, &oci.Error{Code: oci.ManifestInvalid, Status: http.StatusBadGateway, Message: u.Host() + " sent " + err.Error()}
		}
	}
}
