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

// holds notes what an upstream's answer about c's blob says: that c's identity may
// have it, and that its repository holds it.
func (p *Proxy) holds(c *call, err error) {
	if p.cache == nil {
		return
	}
	p.note(c, err)
	if err == nil && c.upstream != "" {
		_ = p.cache.HoldBlob(c.repository(), c.Digest, cache.Holding{Upstream: c.upstream}) // lost, it is asked for again
	}
}

// known reports whether one of the registry's upstreams has said that c's
// repository holds c's blob. What a former upstream said does not count.
func (p *Proxy) known(c *call) bool {
	return c.registry.has(p.cache.BlobHolder(c.repository(), c.Digest))
}

// mayHave sees to it that c's identity may have c's blob of c's repository: by a
// live grant where the repository is known to hold it, and otherwise by asking the
// upstream (security.md §3). While the upstream is away an older grant counts.
func (p *Proxy) mayHave(c *call) error {
	known := p.known(c)
	if known && p.granted(c) {
		return nil
	}
	c.fallback = known
	ctx, cancel := context.WithTimeout(c.http.Context(), p.freshness.Timeout)
	defer cancel()
	_, err := c.describeBlob(ctx)
	p.holds(c, err)
	if known && oci.Away(err) && p.stretched(c) {
		return nil
	}
	return err
}

// serveKept serves a blob that is whole on disk, by sendfile where the connection
// takes it.
func (p *Proxy) serveKept(a *answer, c *call, kept *cache.Blob) error {
	if err := p.mayHave(c); err != nil {
		return err
	}
	c.cached = "hit"
	c.blobHeader(a.Header())
	if kept.Size == 0 && parseRange(c.http.Header, c.Digest).some {
		// To a suffix range of nothing ServeContent answers "bytes 0--1/0".
		unsatisfiable(a, 0)
		return nil
	}
	http.ServeContent(a, c.http, "", time.Time{}, kept.File)
	return nil
}

// fillBlob joins the fetching of a blob into the cache, or begins it.
func (p *Proxy) fillBlob(a *answer, c *call) error {
	want := cache.Want{
		Digest:  c.Digest,
		By:      c.Registry + "/" + c.Repository + " " + c.identity.name,
		Granted: p.known(c) && p.granted(c),
	}
	c.cached = "fill"
	pool := c.registry.pool
	for {
		f := &fetch{call: c, pool: pool}
		stream, err := p.cache.Fill(c.http.Context(), want, f.open)
		if errors.Is(err, cache.ErrForeign) {
			if err := p.mayHave(c); err != nil {
				return err
			}
			want.Granted = true
			continue
		}
		if err == nil {
			c.upstream = f.answered()
			// Before the last byte: who has it all may count on its being known.
			p.holds(c, nil)
			err = p.sendFill(a, c, stream)
			stream.Close()
		} else if !errors.Is(err, cache.ErrStorage) {
			p.note(c, err)
		}
		switch {
		case errors.Is(err, cache.ErrStorage):
			p.log.WithError(err).WithField("digest", c.Digest).Warn("blob not kept")
			c.cached = "miss"
			return p.passBlob(a, c, a.bytes)
		case !errors.Is(err, cache.ErrMismatch) || a.begun():
			return err
		}
		// As long as the client has seen nothing, another upstream may do better.
		if len(pool) > 1 && f.first() != nil {
			pool = pool.Without(f.first())
			continue
		}
		return &oci.Error{Code: oci.ManifestInvalid, Status: http.StatusBadGateway, Message: "the upstream sent a blob that is not its digest", Err: err}
	}
}

// sendFill sends what the client wants of a blob as it comes in.
func (p *Proxy) sendFill(a *answer, c *call, s *cache.Stream) error {
	want := parseRange(c.http.Header, c.Digest)
	start, end := int64(0), s.Size
	status := http.StatusOK
	h := a.Header()
	c.blobHeader(h)
	if want.some && s.Size >= 0 {
		var ok bool
		if start, end, ok = want.of(s.Size); !ok {
			unsatisfiable(a, s.Size)
			return nil
		}
		status = http.StatusPartialContent
		h.Set("Content-Range", contentRange(start, end, s.Size))
	}
	if end >= 0 {
		h.Set("Content-Length", strconv.FormatInt(end-start, 10))
	}
	// The header waits for the first bytes: until then an error can be told.
	_, err := s.CopyTo(c.http.Context(), lateHeader{a, status}, start, end)
	if err == nil && !a.begun() {
		a.WriteHeader(status)
	}
	return err
}
