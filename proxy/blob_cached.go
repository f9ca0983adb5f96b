package proxy

import (
	"context"
	"errors"
	"net/http"
	"syscall"
	"time"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

// errUnproven says that an upstream's answer does not show that it has the blob.
var errUnproven = errors.New("the upstream's answer does not show that it has the blob")

// entitle makes sure that the caller may have r's blob of r's repository: by a live grant that
// covers it, and otherwise by asking the upstream, which must describe the blob as it is stored:
// size bytes (-1: unknown). While the upstream is away an older grant counts.
func (p *Proxy) entitle(ctx context.Context, l *accessLine, r *request, size int64) error {
	known := p.cache.BlobHoldings(r.repository(), r.Digest)
	if p.may(r, known) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.freshness.Timeout)
	defer cancel()
	asked := time.Now()
	d, u, err := r.describeBlob(ctx, l, !r.mirror && len(known) == 0)
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
	p.holdsBlob(r, u, asked)
	return nil
}

// serveStored serves a blob that is whole on disk, by sendfile where the connection allows it.
func (p *Proxy) serveStored(w *response, r *request, stored *cache.Blob) error {
	switch err := p.entitle(r.http.Context(), &w.line, r, stored.Size); {
	case errors.Is(err, errUnproven):
		return p.fetchBlob(w, r, true)
	case err != nil:
		return err
	}
	if w.line.cache = "hit"; w.line.shared {
		w.line.cache = "fill"
	}
	r.blobHeader(w.Header())
	if stored.Size == 0 && parseRanges(r.http.Header, r.Digest) != nil {
		// To a suffix range of nothing ServeContent answers "bytes 0--1/0".
		unsatisfiable(w, 0)
		return nil
	}
	size := stored.Size
	if ranges := parseRanges(r.http.Header, r.Digest); ranges != nil {
		size = sizeOf(partsOf(ranges, stored.Size))
	}
	defer p.downloading(w, size)()
	http.ServeContent(w, r.http, "", time.Time{}, stored.File)
	if errors.Is(w.failure, syscall.EIO) { // a socket has no such error
		p.dropUnreadable(r)
	}
	return nil
}

// dropUnreadable removes a stored blob that the disk cannot read: the next pull fetches it.
func (p *Proxy) dropUnreadable(r *request) {
	p.log.WithField("digest", r.Digest).Warn("the disk cannot read a stored blob; it is removed")
	c, err := p.cache.Stored(r.Digest, false)
	if err == nil {
		_, err = p.cache.RemoveContent(context.Background(), []cache.Content{c})
	}
	if err != nil {
		p.log.WithError(err).WithField("digest", r.Digest).Warn("cannot remove a blob")
	}
}
