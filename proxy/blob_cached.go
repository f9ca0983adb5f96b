package proxy

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// errUnproven says that an upstream's answer does not show that it has the blob.
var errUnproven = errors.New("the upstream's answer does not show that it has the blob")

// entitle makes sure that the caller may have r's blob of r's repository: by a live grant that
// covers it, and otherwise by asking the upstream, which must describe the blob as it is stored:
// size bytes (-1: unknown). While the upstream is away an older grant counts.
func (p *Proxy) entitle(w *response, r *request, size int64) error {
	known := p.cache.BlobHoldings(r.repository(), r.Digest)
	if p.may(r, known) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.http.Context(), p.freshness.Timeout)
	defer cancel()
	d, u, err := r.describeBlob(ctx, &w.line, !r.mirror && len(known) == 0)
	switch {
	case err != nil:
		p.noteRefusal(r, u, err)
		if p.mayWhileAway(r, known, err) != nil {
			return nil
		}
		return err
	case !d.proves(r.Digest, size):
		return errUnproven
	}
	p.holdsBlob(r, u)
	return nil
}

// serveStored serves a blob that is whole on disk, by sendfile where the connection allows it.
func (p *Proxy) serveStored(w *response, r *request, stored *cache.Blob) error {
	switch err := p.entitle(w, r, stored.Size); {
	case errors.Is(err, errUnproven):
		return p.passBlob(w, r, 0)
	case err != nil:
		return err
	}
	w.line.cache = "hit"
	r.blobHeader(w.Header())
	if stored.Size == 0 && parseRange(r.http.Header, r.Digest).some {
		// To a suffix range of nothing ServeContent answers "bytes 0--1/0".
		unsatisfiable(w, 0)
		return nil
	}
	http.ServeContent(w, r.http, "", time.Time{}, stored.File)
	return nil
}

// fillBlob joins the fetching of a blob into the cache, or begins it.
func (p *Proxy) fillBlob(w *response, r *request) error {
	want := cache.Want{
		Digest:    r.Digest,
		By:        r.fillName(),
		Untrusted: !r.caller.Trusted,
		Granted:   p.may(r, p.cache.BlobHoldings(r.repository(), r.Digest)) != nil,
	}
	w.line.cache = "fill"
	pool := r.registry.pool
	for {
		f := &fetch{request: r, pool: pool}
		want.Verified = func() { p.holdsBlob(r, f.first()) }
		stream, err := p.cache.Fill(r.http.Context(), want, f.open)
		if errors.Is(err, cache.ErrForeign) {
			err := p.entitle(w, r, -1)
			if errors.Is(err, errUnproven) {
				return p.passBlob(w, r, 0)
			}
			if err != nil {
				return err
			}
			want.Granted = true
			continue
		}
		if err == nil {
			w.line.answeredBy(f.first())
			err = p.sendFill(w, r, stream)
			stream.Close()
		} else if !errors.Is(err, cache.ErrStorage) {
			p.noteRefusal(r, f.first(), err)
		}
		switch {
		case errors.Is(err, cache.ErrBusy):
			w.line.cache = "miss"
			return p.passBlob(w, r, 0)
		case errors.Is(err, cache.ErrStorage):
			p.log.WithError(err).WithField("digest", r.Digest).Warn("cannot store a blob")
			w.line.cache = "miss"
			return p.passBlob(w, r, w.line.bytes)
		case !errors.Is(err, cache.ErrMismatch) || w.begun():
			return err
		}
		// As long as the client has seen nothing, another upstream may do better.
		if len(pool) > 1 && f.first() != nil {
			pool = pool.Without(f.first())
			continue
		}
		return &oci.Error{Code: oci.ManifestInvalid, Status: http.StatusBadGateway, Message: "the upstream sent a blob that does not match its digest", Err: err}
	}
}

// fillName returns in whose name r fetches: the repository and the identities of its caller.
// Requests of the same name share a refusal of the upstream too.
func (r *request) fillName() string {
	return r.Registry + "/" + r.Repository + " " + r.caller.Name()
}

// sendFill sends what the client wants of a blob as it comes in.
func (p *Proxy) sendFill(w *response, r *request, s *cache.Stream) error {
	want := parseRange(r.http.Header, r.Digest)
	start, end := int64(0), s.Size
	status := http.StatusOK
	h := w.Header()
	r.blobHeader(h)
	if want.some && s.Size >= 0 {
		var ok bool
		if start, end, ok = want.of(s.Size); !ok {
			unsatisfiable(w, s.Size)
			return nil
		}
		status = http.StatusPartialContent
		h.Set("Content-Range", contentRange(start, end, s.Size))
	}
	if end >= 0 {
		h.Set("Content-Length", strconv.FormatInt(end-start, 10))
	}
	// The header waits for the first bytes: until then an error can be reported.
	_, err := s.CopyTo(r.http.Context(), lateHeader{w, status}, start, end)
	if err == nil && !w.begun() {
		w.WriteHeader(status)
	}
	return err
}
