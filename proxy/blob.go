package proxy

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// serveBlob responds with a blob, whole or parts of it: from the cache, or as it comes in.
func (p *Proxy) serveBlob(w *response, r *request) error {
	if p.cache != nil {
		stored, err := p.cache.Blob(r.Digest, !r.caller.Trusted)
		if err == nil {
			defer stored.Close()
			w.line.ahead = p.asked(r, false)
			return p.serveStored(w, r, stored)
		}
	}
	if r.http.Method == http.MethodHead {
		u, err := r.headBlob(w)
		p.noteRefusal(r, u, err)
		return err
	}
	w.line.ahead = p.asked(r, true)
	if p.prefetch != nil {
		defer p.prefetch.Client()()
	}
	return p.fetchBlob(w, r, false)
}

// headBlob says how long a blob is, without fetching it.
func (r *request) headBlob(w *response) (*upstream.Upstream, error) {
	d, u, err := r.describeBlob(r.http.Context(), &w.line, !r.mirror)
	if err != nil {
		return u, err
	}
	r.blobHeader(w.Header())
	if d.size >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(d.size, 10))
	}
	w.WriteHeader(http.StatusOK)
	return u, nil
}

// description is what an upstream says of a blob without sending it.
type description struct {
	size   int64 // -1: unknown
	digest string
	kind   string // Content-Type
}

// proves reports whether it shows that the upstream has the blob of that digest and size (-1:
// unknown). A server that answers 200 to everything does not.
func (d description) proves(dgst digest.Digest, size int64) bool {
	switch {
	case d.digest != "" && d.digest != dgst.String(), strings.HasPrefix(oci.MediaType(d.kind), "text/"):
		return false
	case d.size >= 0 && size >= 0:
		return d.size == size
	}
	return d.digest != ""
}

// describeBlob asks what r's blob is. It returns the upstream that responded, also with some
// errors.
func (r *request) describeBlob(ctx context.Context, l *accessLine, patient bool) (description, *upstream.Upstream, error) {
	pool := r.registry.pool
	q := r.query(http.MethodHead)
	q.Patient = patient
	resp, u, err := r.ask(ctx, l, pool, q)
	if err == nil && resp.ContentLength < 0 || r.headFailed(err) {
		q.Method = http.MethodGet
		q.Header.Set("Range", "bytes=0-0")
		if resp, u, err = r.ask(ctx, l, pool, q); err == nil {
			upstream.AsHead(resp)
		}
	}
	if err != nil {
		return description{}, u, err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return description{}, u, &oci.Error{Code: oci.Unavailable, Upstream: resp.StatusCode, Message: fmt.Sprintf("the upstream answered %d to a HEAD", resp.StatusCode)}
	}
	return description{
		size:   resp.ContentLength,
		digest: resp.Header.Get("Docker-Content-Digest"),
		kind:   resp.Header.Get("Content-Type"),
	}, u, nil
}

// blobHeader sets what every response about a blob says.
func (r *request) blobHeader(h http.Header) {
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", r.Digest.String())
	h.Set("ETag", etag(r.Digest))
	h.Set("Accept-Ranges", "bytes")
}

// unsatisfiable responds to a range of which the blob has nothing.
func unsatisfiable(w *response, total int64) {
	w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", total))
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
}
