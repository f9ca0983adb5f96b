package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

const copyBuffer = 64 << 10

// serveBlob responds with a blob, whole or a range: from the cache, from a fill that is under
// way, or as it comes from the upstream.
func (p *Proxy) serveBlob(w *response, r *request) error {
	if p.cache == nil {
		if r.http.Method == http.MethodHead {
			_, err := r.headBlob(w)
			return err
		}
		return p.passBlob(w, r, 0)
	}
	stored, err := p.cache.Blob(r.Digest, !r.caller.Trusted)
	if err == nil {
		defer stored.Close()
		return p.serveStored(w, r, stored)
	}
	if r.http.Method == http.MethodHead {
		u, err := r.headBlob(w)
		p.noteRefusal(r, u, err)
		return err
	}
	if !parseRange(r.http.Header, r.Digest).worthFilling() && !p.cache.Filling(r.Digest) {
		w.line.cache = "miss"
		return p.passBlob(w, r, 0)
	}
	return p.fillBlob(w, r)
}

// passBlob streams a blob past the cache, from the byte that the client is at.
func (p *Proxy) passBlob(w *response, r *request, sent int64) error {
	want := parseRange(r.http.Header, r.Digest)
	pool := r.registry.pool
	for {
		b, u, err := r.openBlob(&w.line, pool, want)
		p.noteRefusal(r, u, err)
		if err != nil {
			return err
		}
		if _, err = io.CopyN(io.Discard, b, sent); err == nil {
			err = r.copyBlob(w, b)
		}
		b.close()
		// As long as the client has seen nothing, another upstream may do better.
		if !errors.Is(err, errWrongBytes) || w.begun() {
			return err
		}
		if pool = pool.Without(b.first); len(pool) == 0 {
			return &oci.Error{Code: oci.ManifestInvalid, Status: http.StatusBadGateway, Message: b.first.Host() + " sent a blob that does not match its digest", Err: err}
		}
	}
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

// copyBlob sends b to the client. The response begins with the first bytes, so that until then
// an error can still be reported; the last bytes of a whole blob go out only when all of it is
// verified.
func (r *request) copyBlob(w *response, b *blob) error {
	if b.unsatisfiable {
		r.blobHeader(w.Header())
		unsatisfiable(w, b.total)
		return nil
	}
	// Two buffers: while the end is unknown a chunk is sent when the next has come.
	var held []byte
	buf, spare := make([]byte, copyBuffer), make([]byte, copyBuffer)
	for {
		n, err := b.Read(buf)
		over := errors.Is(err, io.EOF)
		if err != nil && !over {
			return err
		}
		if len(held) > 0 && (n > 0 || over) {
			if err := r.sendPart(w, b, held); err != nil {
				return err
			}
			held = nil
		}
		if n > 0 && (b.end >= 0 || over) {
			if err := r.sendPart(w, b, buf[:n]); err != nil {
				return err
			}
		} else if n > 0 {
			held = buf[:n]
			buf, spare = spare, buf
		}
		if over {
			return r.sendPart(w, b, nil)
		}
	}
}

// sendPart writes a part of b, after the header if that is not out yet.
func (r *request) sendPart(w *response, b *blob, part []byte) error {
	if !w.begun() {
		h := w.Header()
		r.blobHeader(h)
		status := http.StatusOK
		if b.end >= 0 {
			h.Set("Content-Length", strconv.FormatInt(b.end-b.start, 10))
		}
		if b.partial {
			status = http.StatusPartialContent
			h.Set("Content-Range", contentRange(b.start, b.end, b.total))
		}
		w.WriteHeader(status)
	}
	if len(part) == 0 {
		return nil
	}
	_, err := w.Write(part)
	return err
}

// unsatisfiable responds to a range of which the blob has nothing.
func unsatisfiable(w *response, total int64) {
	w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", total))
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
}

func contentRange(start, end, total int64) string {
	if total < 0 {
		return fmt.Sprintf("bytes %d-%d/*", start, end-1)
	}
	return fmt.Sprintf("bytes %d-%d/%d", start, end-1, total)
}
