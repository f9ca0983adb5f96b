package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

const copyBuffer = 64 << 10

// serveBlob answers for a blob, whole or a range: from the cache, from a fill under
// way, or as it comes from the upstream.
func (p *Proxy) serveBlob(a *answer, c *call) error {
	if p.cache == nil {
		if c.http.Method == http.MethodHead {
			return c.headBlob(a)
		}
		return p.passBlob(a, c, 0)
	}
	kept, err := p.cache.Blob(c.Digest)
	if err == nil {
		defer kept.Close()
		return p.serveKept(a, c, kept)
	}
	if c.http.Method == http.MethodHead {
		err := c.headBlob(a)
		p.holds(c, err)
		return err
	}
	if !parseRange(c.http.Header, c.Digest).worthFilling() && !p.cache.Filling(c.Digest) {
		c.cached = "miss"
		return p.passBlob(a, c, 0)
	}
	return p.fillBlob(a, c)
}

// passBlob streams a blob past the cache, from the byte that the client is at.
func (p *Proxy) passBlob(a *answer, c *call, sent int64) error {
	want := parseRange(c.http.Header, c.Digest)
	pool := c.registry.pool
	for {
		b, err := c.openBlob(pool, want)
		p.holds(c, err)
		if err != nil {
			return err
		}
		if _, err = io.CopyN(io.Discard, b, sent); err == nil {
			err = c.copyBlob(a, b)
		}
		b.close()
		// As long as the client has seen nothing, another upstream may do better.
		if !errors.Is(err, errWrongBytes) || a.begun() {
			return err
		}
		if pool = pool.Without(b.first); len(pool) == 0 {
			return &oci.Error{Code: oci.ManifestInvalid, Status: http.StatusBadGateway, Message: b.first.Host() + " sent a blob that is not its digest", Err: err}
		}
	}
}

// headBlob says how long a blob is, without fetching it.
func (c *call) headBlob(a *answer) error {
	size, err := c.describeBlob(c.http.Context())
	if err != nil {
		return err
	}
	c.blobHeader(a.Header())
	if size >= 0 {
		a.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	}
	a.WriteHeader(http.StatusOK)
	return nil
}

// describeBlob gives a blob's size; -1 from an upstream that does not say it.
func (c *call) describeBlob(ctx context.Context) (size int64, err error) {
	pool := c.registry.pool
	resp, _, err := c.ask(ctx, pool, c.upstreamRequest(http.MethodHead))
	if err == nil && resp.ContentLength < 0 || headUnserved(err) {
		r := c.upstreamRequest(http.MethodGet)
		r.Header.Set("Range", "bytes=0-0")
		if resp, _, err = c.ask(ctx, pool, r); err == nil {
			upstream.AsHead(resp)
		}
	}
	if err != nil {
		return 0, err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, &oci.Error{Code: oci.Unavailable, Upstream: resp.StatusCode, Message: fmt.Sprintf("the upstream answers %d to a HEAD", resp.StatusCode)}
	}
	return resp.ContentLength, nil
}

// blobHeader sets what every answer about a blob says.
func (c *call) blobHeader(h http.Header) {
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", c.Digest.String())
	h.Set("ETag", strconv.Quote(c.Digest.String()))
	h.Set("Accept-Ranges", "bytes")
}

// copyBlob sends b to the client. The answer begins with the first bytes, so that
// until then an error can still be told; the last of a whole blob go out only when
// all of it is verified.
func (c *call) copyBlob(a *answer, b *blob) error {
	if b.unsatisfiable {
		c.blobHeader(a.Header())
		unsatisfiable(a, b.total)
		return nil
	}
	// Two buffers: while the end is unknown a chunk is sent when the next has come.
	var kept []byte
	buf, spare := make([]byte, copyBuffer), make([]byte, copyBuffer)
	for {
		n, err := b.Read(buf)
		over := errors.Is(err, io.EOF)
		if err != nil && !over {
			return err
		}
		if len(kept) > 0 && (n > 0 || over) {
			if err := c.sendPart(a, b, kept); err != nil {
				return err
			}
			kept = nil
		}
		if n > 0 && (b.end >= 0 || over) {
			if err := c.sendPart(a, b, buf[:n]); err != nil {
				return err
			}
		} else if n > 0 {
			kept = buf[:n]
			buf, spare = spare, buf
		}
		if over {
			return c.sendPart(a, b, nil)
		}
	}
}

// sendPart writes a part of b, after the header if that is not out yet.
func (c *call) sendPart(a *answer, b *blob, part []byte) error {
	if !a.begun() {
		h := a.Header()
		c.blobHeader(h)
		status := http.StatusOK
		if b.end >= 0 {
			h.Set("Content-Length", strconv.FormatInt(b.end-b.start, 10))
		}
		if b.partial {
			status = http.StatusPartialContent
			h.Set("Content-Range", contentRange(b.start, b.end, b.total))
		}
		a.WriteHeader(status)
	}
	if len(part) == 0 {
		return nil
	}
	_, err := a.Write(part)
	return err
}

// unsatisfiable answers to a range of which nothing is there.
func unsatisfiable(a *answer, total int64) {
	a.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", total))
	a.Header().Set("Content-Length", "0")
	a.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
}

func contentRange(start, end, total int64) string {
	if total < 0 {
		return fmt.Sprintf("bytes %d-%d/*", start, end-1)
	}
	return fmt.Sprintf("bytes %d-%d/%d", start, end-1, total)
}
