package shared

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"
)

var (
	// ErrMissing says that the store does not have a blob.
	ErrMissing = errors.New("the shared store does not have the blob")

	// ErrAway says that the store is not asked now, because it has failed lately.
	ErrAway = errors.New("the shared store has failed lately")
)

// hangsAfter is how long a store may take to respond after a registry has.
const hangsAfter = 2 * time.Second

// Object is what the store sends for a range of a blob.
type Object struct {
	Body  io.ReadCloser
	Start int64 // of the body's first byte
	End   int64 // after its last byte
	Total int64 // the whole blob's size
	ETag  string
}

// Open asks for the bytes of a blob from start to end (-1: the blob's end). The error wraps ErrMissing
// if the store does not have the blob, or has sent wrong content for its digest lately.
func (s *Store) Open(ctx context.Context, d digest.Digest, start, end int64) (Object, error) {
	if s.breaker.fault() != nil {
		return Object{}, ErrAway
	}
	if s.bad.has(d, time.Now()) {
		return Object{}, fmt.Errorf("%w: it had wrong content", ErrMissing)
	}
	asked := s.ask(ctx, d, start, end)
	select {
	case <-asked.done:
	case <-ctx.Done():
		s.work.Go(asked.abandon)
		return Object{}, context.Canceled
	}
	o, err := asked.result()
	if err == nil {
		context.AfterFunc(ctx, asked.cancel)
		o.Body = &body{o.Body, s, asked.ctx, asked.cancel}
	}
	return o, err
}

// question is a request for a range of a blob, until the header of its response is there.
type question struct {
	store  *Store
	ctx    context.Context // outlives that of who asks
	cancel context.CancelFunc
	late   *time.Timer // ends it if no header comes
	done   chan struct{}
	object Object // these are set before done is closed
	err    error
}

func (s *Store) ask(ctx context.Context, d digest.Digest, start, end int64) *question {
	q := &question{store: s, done: make(chan struct{})}
	var cancel context.CancelFunc
	q.ctx, cancel = context.WithCancel(context.WithoutCancel(ctx))
	forget := context.AfterFunc(s.life, cancel)
	q.cancel = func() { forget(); cancel() }
	q.late = time.AfterFunc(shortTimeout, q.cancel)
	s.work.Go(func() {
		defer close(q.done)
		q.object, q.err = s.get(q.ctx, d, start, end)
	})
	return q
}

// result returns the response when done is closed, and records whether it is as it should be.
func (q *question) result() (Object, error) {
	s, inTime := q.store, q.late.Stop()
	if q.err == nil && inTime {
		return q.object, nil
	}
	if q.err == nil {
		_ = q.object.Body.Close()
	}
	ended := inTime && q.ctx.Err() != nil
	q.cancel()
	err := q.err
	switch {
	case isMissing(err):
		s.counts.misses.Add(1)
		s.result(context.Background(), nil)
		return Object{}, ErrMissing
	case ended:
		return Object{}, context.Canceled
	case !inTime:
		err = errNoResponse
	}
	s.result(context.Background(), err)
	return Object{}, fmt.Errorf("the shared store: %w", err)
}

// abandon waits for a response that no pull waits for any more, since a registry was quicker. It finds
// out whether the store is only slow, or hangs: then each pull would wait for it.
func (q *question) abandon() {
	q.late.Reset(hangsAfter)
	<-q.done
	if o, err := q.result(); err == nil {
		_ = o.Body.Close()
		q.cancel()
	}
}

// get sends the request for a range, and reads the header of the response.
func (s *Store) get(ctx context.Context, d digest.Digest, start, end int64) (Object, error) {
	var opts minio.GetObjectOptions
	ranged := start > 0 || end >= 0
	if ranged {
		if err := opts.SetRange(start, max(end-1, 0)); err != nil {
			return Object{}, err
		}
	}
	r, info, header, err := s.bucket.get(ctx, s.blobKey(d), opts)
	if err != nil {
		return Object{}, err
	}
	o := Object{Body: r, Start: 0, End: info.Size, Total: info.Size, ETag: info.ETag}
	if ranged {
		o.Start, o.End, o.Total, err = contentRange(header)
	}
	if err != nil || o.Total < 0 || o.Start != start || o.End <= o.Start && o.Total > 0 || o.End > o.Total {
		_ = r.Close()
		return Object{}, errors.New("the response has another range than was asked for")
	}
	return o, nil
}

// contentRange reads the header of that name.
func contentRange(h http.Header) (start, end, total int64, err error) {
	if _, err = fmt.Sscanf(h.Get("Content-Range"), "bytes %d-%d/%d", &start, &end, &total); err != nil {
		return 0, 0, 0, errors.New("the response has no valid Content-Range")
	}
	return start, end + 1, total, nil
}

// body is an object's body. That it breaks off is a fault of the store's.
type body struct {
	io.ReadCloser
	store  *Store
	ctx    context.Context
	cancel context.CancelFunc
}

// Read implements [io.Reader].
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && b.ctx.Err() == nil {
		b.store.result(b.ctx, fmt.Errorf("the content broke off: %w", err))
	}
	return n, err
}

// Close implements [io.Closer].
func (b *body) Close() error {
	b.cancel()
	return b.ReadCloser.Close()
}

// Verified records that a blob from the store had its digest.
func (s *Store) Verified() {
	s.counts.hits.Add(1)
	s.breaker.proved()
}

// Wrong records that what the store sent for a digest does not have it. The store is not asked for that
// blob for an hour. If this host uploads the blob, it replaces what is there.
func (s *Store) Wrong(d digest.Digest) {
	s.counts.wrong.Add(1)
	s.bad.add(d, time.Now())
	s.breaker.failed(&fault{code: codeWrongContent, text: "sent content that does not match the digest " + d.String(), tripsAtOnce: true}, time.Now())
}

// Slow records that the store sends so slowly that a registry would be quicker.
func (s *Store) Slow() {
	s.counts.failed.Add(1)
	s.breaker.failed(&fault{code: codeSlow, text: "sends more slowly than registries", tripsAtOnce: true}, time.Now())
}
