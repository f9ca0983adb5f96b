package proxy

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/sidemirror/sidemirror/internal/extent"
	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/transfer"
)

// fetchBlob responds with a blob that is not stored, as it comes in. If alone is true, the caller gets
// what its upstreams send it, and nothing is stored.
func (p *Proxy) fetchBlob(w *response, r *request, alone bool) error {
	filled, err := w.line.visit.Fill(r.http.Context())
	if e, refused := errors.AsType[*oci.Error](err); refused {
		return ownRefusal{e}
	} else if err != nil {
		return err
	}
	defer filled()
	f := &fetch{request: r}
	want := transfer.Want{
		Digest:    r.Digest,
		Source:    f,
		Ranges:    parseRanges(r.http.Header, r.Digest),
		By:        r.fillName(),
		Untrusted: !r.caller.Trusted,
		Alone:     alone,
		Parallel:  r.registry.parallel,
		Verified:  func(name string) { p.holdsBlob(r, r.registry.upstream(name), f.askedAt()) },
	}
	if p.cache != nil {
		want.Granted = p.may(r, p.cache.BlobHoldings(r.repository(), r.Digest)) != nil
	}
	for tries := len(r.registry.pool); ; tries-- {
		reader, fromShared, err := p.openBlob(r.http.Context(), r, want, f)
		switch {
		case errors.Is(err, transfer.ErrStored):
			stored, err := p.cache.Blob(r.Digest, want.Untrusted)
			if err == nil {
				defer stored.Close()
				w.line.shared = fromShared
				return p.serveStored(w, r, stored)
			}
			want.Alone = true // it is gone again
			continue
		case errors.Is(err, transfer.ErrForeign):
			err := p.entitle(r.http.Context(), &w.line, r, -1)
			if err != nil && !errors.Is(err, errUnproven) {
				return err
			}
			want.Granted, want.Alone = err == nil, err != nil
			continue
		case err == nil:
			p.responded(r)
			err = p.sendBlob(w, r, reader)
			_ = reader.Close()
		default:
			p.noteRefusal(r, f.responded(), err)
		}
		var none *transfer.UnsatisfiableError
		if errors.As(err, &none) && !w.begun() {
			r.blobHeader(w.Header())
			unsatisfiable(w, none.Size)
			return nil
		}
		if !errors.Is(err, transfer.ErrMismatch) || w.begun() {
			return err
		}
		// As long as the client has seen nothing, another upstream may do better.
		if tries <= 1 {
			return &oci.Error{Code: oci.ManifestInvalid, Status: http.StatusBadGateway, Message: "the upstream sent a blob that does not match its digest", Err: err}
		}
	}
}

// fillName returns in whose name r fetches: the repository and the identities of its caller.
// Requests of the same name share a refusal of the upstream too.
func (r *request) fillName() string {
	return r.Registry + "/" + r.Repository + " " + r.caller.Name()
}

// sendBlob sends what the client wants of a blob as it comes in. The header goes out with the first
// bytes: until then an error can still be reported.
func (p *Proxy) sendBlob(w *response, r *request, reader *transfer.Reader) error {
	w.line.answeredBy(r.registry.upstream(reader.Upstream()))
	w.line.cache = "fill"
	stored := p.noteStorage(w, r, reader)
	h := w.Header()
	r.blobHeader(h)
	parts := []extent.Extent{{Start: 0, End: reader.Size}}
	status := http.StatusOK
	if ranges := parseRanges(r.http.Header, r.Digest); ranges != nil && reader.Size >= 0 {
		if parts, status = partsOf(ranges, reader.Size), http.StatusPartialContent; len(parts) == 0 {
			unsatisfiable(w, reader.Size)
			return nil
		}
	}
	out := lateHeader{w, status}
	copyPart := func(e extent.Extent) error {
		_, err := reader.CopyTo(r.http.Context(), out, e.Start, e.End)
		return err
	}
	var err error
	defer p.downloading(w, sizeOf(parts))()
	if len(parts) == 1 {
		if status == http.StatusPartialContent {
			h.Set("Content-Range", contentRange(parts[0], reader.Size))
		}
		if reader.Size >= 0 {
			h.Set("Content-Length", strconv.FormatInt(parts[0].Len(), 10))
		}
		err = copyPart(parts[0])
	} else {
		err = newMultirange(out, h, parts, reader.Size).send(copyPart)
	}
	if err == nil && !w.begun() {
		w.WriteHeader(status)
	}
	if stored {
		p.noteStorage(w, r, reader)
	}
	return err
}

// sizeOf returns how many bytes parts have; -1 if that is unknown.
func sizeOf(parts []extent.Extent) (n int64) {
	for _, part := range parts {
		if part.End < 0 {
			return -1
		}
		n += part.Len()
	}
	return n
}

// noteStorage records whether what is read is stored, and logs what prevents that.
func (p *Proxy) noteStorage(w *response, r *request, reader *transfer.Reader) bool {
	stored, err := reader.Stored()
	if !stored {
		w.line.cache = "miss"
	}
	if errors.Is(err, cache.ErrStorage) {
		p.log.WithError(err).WithField("digest", r.Digest).Warn("cannot store a blob")
	}
	return stored
}
