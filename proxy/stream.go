package proxy

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// maxResumes is how often in a row a blob is resumed without at least minProgress bytes of
// progress: an upstream that sends one byte per response would be asked for ever.
const (
	maxResumes  = 3
	minProgress = 256 << 10
)

// resumePause is how long the second of them waits; the third waits twice that.
const resumePause = 200 * time.Millisecond

// errWrongBytes says that what came is not what was asked for. A client that was sent some of it
// must see a broken connection.
var errWrongBytes = errors.New("the bytes do not match the digest")

// blob reads a blob or a range of one from upstreams. If one breaks off, it resumes by Range. If
// the upstream cannot do that, it reads from the start and compares what it skips with what it has
// delivered. A whole blob is verified before its last bytes are delivered.
type blob struct {
	ctx     context.Context
	request *request
	line    *accessLine
	pool    upstream.Pool

	start, end int64 // what is delivered: [start, end); end -1: until the upstream's end
	total      int64 // of the whole blob; -1: unknown
	partial    bool  // the client gets a range

	unsatisfiable bool // nothing of the range is there

	first     *upstream.Upstream // the one that responded first
	body      io.ReadCloser
	offset    int64     // of the next byte delivered
	delivered hash.Hash // of [start, offset)
	resumes   int
	progress  int64 // bytes since the last of them
}

// openBlob asks the pool for what r asks.
func (r *request) openBlob(l *accessLine, pool upstream.Pool, want byteRange) (*blob, *upstream.Upstream, error) {
	b := &blob{ctx: r.http.Context(), request: r, line: l, pool: pool, total: -1, end: -1}
	resp, u, err := b.ask(want.header()) //nolint:bodyclose // it is the blob's, and closed with it
	if err != nil {
		return nil, u, err
	}
	b.first, b.body = u, resp.Body
	if err := b.begin(resp, want); err != nil {
		b.close()
		return nil, u, &oci.Error{Code: oci.Unavailable, Message: u.Host() + " sent " + err.Error()}
	}
	b.offset = b.start
	b.delivered = newHash(r.Digest)
	return b, u, nil
}

func newHash(d digest.Digest) hash.Hash { return d.Algorithm().Hash() }

func (b *blob) ask(rangeHeader string) (*http.Response, *upstream.Upstream, error) {
	q := b.request.query(http.MethodGet)
	if b.body != nil { // a blob that is under way is worth asking again for
		q.Patient, q.HeaderTimeout = true, upstream.BodyPause
	}
	if rangeHeader != "" {
		q.Header.Set("Range", rangeHeader)
	}
	return b.request.ask(b.ctx, b.line, b.pool, q)
}

// begin makes of the first response what the client will get.
func (b *blob) begin(resp *http.Response, want byteRange) error {
	switch resp.StatusCode {
	case http.StatusRequestedRangeNotSatisfiable:
		_, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes */%d", &b.total)
		if !want.some || err != nil || b.total < 0 {
			return errors.New("a 416 that makes no sense")
		}
		b.unsatisfiable = true
		return nil
	case http.StatusPartialContent:
		start, end, total, err := parseContentRange(resp.Header.Get("Content-Range"))
		if err != nil {
			return err
		}
		if !want.some || !want.matches(start, end, total) || (resp.ContentLength >= 0 && resp.ContentLength != end-start) {
			return errors.New("another range than was asked for")
		}
		b.start, b.end, b.total, b.partial = start, end, total, true
		return nil
	case http.StatusOK:
		return b.beginWhole(resp.ContentLength, want)
	}
	return fmt.Errorf("a %d to a GET", resp.StatusCode)
}

// matches reports whether a Content-Range is that of the range asked for.
func (r byteRange) matches(start, end, total int64) bool {
	if total >= 0 {
		s, e, ok := r.of(total)
		return ok && s == start && e == end
	}
	return r.suffix == 0 && start == r.first && (r.last < 0 || end <= r.last+1)
}

// beginWhole takes a 200. If it answers a Range, the upstream serves none: the client gets its
// range all the same if the length is known, and otherwise the whole.
func (b *blob) beginWhole(length int64, want byteRange) error {
	if b.total = length; length < 0 || !want.some {
		b.end = length
		return nil
	}
	var ok bool
	if b.start, b.end, ok = want.of(length); !ok {
		b.unsatisfiable = true
		return nil
	}
	b.partial = true
	_, err := io.CopyN(io.Discard, b.body, b.start)
	if err != nil {
		return errors.New("a blob that broke off before the range asked for")
	}
	return nil
}

// Read implements [io.Reader]. It returns io.EOF after the last byte, errWrongBytes if the bytes do
// not match the digest, and other errors if no upstream could finish what one began.
func (b *blob) Read(p []byte) (int, error) {
	for {
		if b.end >= 0 && b.offset == b.end {
			return 0, b.finish()
		}
		if b.end >= 0 {
			p = p[:min(int64(len(p)), b.end-b.offset)]
		}
		n, err := b.body.Read(p)
		if n > 0 {
			b.offset += int64(n)
			if b.progress += int64(n); b.progress >= minProgress {
				b.resumes = 0
			}
			b.delivered.Write(p[:n])
			if b.offset == b.end { // do not deliver the end of what is not right
				if err := b.finish(); !errors.Is(err, io.EOF) {
					return 0, err
				}
			}
			return n, nil
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) && b.end < 0 {
			return 0, b.finish()
		}
		if err := b.resume(err); err != nil {
			return 0, err
		}
	}
}

// finish returns io.EOF if everything is as it should be.
func (b *blob) finish() error {
	whole := b.start == 0 && (b.total < 0 || b.offset == b.total) && !(b.partial && b.total < 0)
	if whole && digest.NewDigest(b.request.Digest.Algorithm(), b.delivered) != b.request.Digest {
		return errWrongBytes
	}
	return io.EOF
}

// resume resumes the blob at the offset after the upstream broke off.
func (b *blob) resume(cause error) error {
	for b.resumes < maxResumes {
		_ = b.body.Close()
		b.resumes++
		b.progress = 0
		if err := pause(b.ctx, time.Duration(b.resumes-1)*resumePause); err != nil {
			return err
		}
		again := byteRange{some: true, first: b.offset, last: -1}
		if b.partial {
			again.last = b.end - 1
		}
		resp, _, err := b.ask(again.header()) //nolint:bodyclose // likewise
		if err == nil {
			b.body = resp.Body
			err = b.rejoin(resp, again)
		}
		if err == nil || errors.Is(err, errWrongBytes) {
			return err
		}
		cause = err
	}
	return fmt.Errorf("the blob broke off at byte %d and could not be resumed: %w", b.offset, cause)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return ctx.Err() // of two that are ready select takes either
	}
}

// rejoin brings the new body to the offset.
func (b *blob) rejoin(resp *http.Response, want byteRange) error {
	switch resp.StatusCode {
	case http.StatusPartialContent:
		start, end, total, err := parseContentRange(resp.Header.Get("Content-Range"))
		if err != nil {
			return err
		}
		if !want.matches(start, end, total) || (b.total >= 0 && total >= 0 && total != b.total) {
			return errWrongBytes
		}
		if b.end < 0 {
			b.end = end // now it is known
		}
		return nil
	case http.StatusOK:
		if b.total >= 0 && resp.ContentLength >= 0 && resp.ContentLength != b.total {
			return errWrongBytes
		}
		return b.skip()
	}
	return fmt.Errorf("the upstream answered %d to a Range", resp.StatusCode)
}

// skip skips what a body that starts from zero has of what is delivered, and compares it: two
// bodies are never spliced unseen.
func (b *blob) skip() error {
	if _, err := io.CopyN(io.Discard, b.body, b.start); err != nil {
		return err
	}
	again := newHash(b.request.Digest)
	if _, err := io.CopyN(again, b.body, b.offset-b.start); err != nil {
		return err
	}
	if string(again.Sum(nil)) != string(b.delivered.Sum(nil)) {
		return errWrongBytes
	}
	return nil
}

func (b *blob) close() { _ = b.body.Close() }
