package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/extent"
	"github.com/sidemirror/sidemirror/proxy/cache"
)

// Reader reads a blob, or parts of it, while it comes in. It must be closed. One goroutine may use it
// at a time.
type Reader struct {
	// Size is the blob's size in bytes; -1 if it is unknown.
	Size int64

	all  *Transfers
	want Want
	from string   // the upstream
	used []string // upstreams whose bytes turned out to be wrong, or incomplete, or slow
	left string   // the slow one
	sent extent.Set

	// What it reads from: a transfer into the cache, or an upstream.
	t      *transfer
	file   *os.File     // of its own, so that each reader has its place in it
	done   func() error // closes a file that is a stored blob
	stream *stream
	why    error // the cache cannot store the blob

	// Under t.mu.
	wants   []extent.Extent
	waitsAt int64 // where it waits; -1: it does not

	close sync.Once
}

// reader makes room for what a caller wants of a transfer that is open, and attaches its reader. If
// there is no room, those of other callers go on.
func (t *transfer) reader(ctx context.Context, want Want) (*Reader, error) {
	t.mu.Lock()
	e := want.unreserved(&t.have, t.partial.Size)
	if t.done || t.checking || t.closing || t.err != nil {
		e = extent.Extent{}
	}
	t.mu.Unlock()
	if err := t.partial.Reserve(ctx, e); err != nil {
		return nil, err
	}
	return t.newReader(want)
}

// newReader attaches a reader to a transfer that is open.
func (t *transfer) newReader(want Want) (*Reader, error) {
	file, err := t.partial.Open()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		if file != nil {
			file.Close()
		}
		return nil, t.err
	}
	if err != nil {
		return nil, err
	}
	r := &Reader{Size: t.size, all: t.all, want: want, from: t.from, t: t, file: file, waitsAt: -1}
	if t.size < 0 {
		r.want.Ranges = nil // a range of what has no end yet is answered with the whole
	} else {
		wants, err := resolve(want.Ranges, t.size)
		if err != nil {
			file.Close()
			return nil, err
		}
		r.wants = t.spread(wants)
	}
	if !t.takesParts(r) {
		file.Close()
		return nil, fmt.Errorf("%w: it is in too many parts", cache.ErrStorage)
	}
	if _, known := t.admitted[want.By]; known && t.admitted[want.By] == nil {
		t.admitted[want.By] = want.Verified
	}
	if !want.Ahead && t.want.Ahead && t.ramp.most <= 1 && t.many(want) {
		t.ramp = newRamp(want.Parallel)
	}
	t.finish = false
	t.readers = append(t.readers, r)
	t.schedule()
	return r, nil
}

// takesParts reports whether what a reader wants, and what the others wait for, can be present next to
// what is. t.mu is held.
func (t *transfer) takesParts(r *Reader) bool {
	missing := t.missing(r)
	if missing == 0 || r.isWhole() {
		return true
	}
	for _, other := range t.readers {
		missing += t.missing(other)
	}
	return t.partial.Takes(missing)
}

// missing returns how many of the parts that a reader wants are not present. t.mu is held.
func (t *transfer) missing(r *Reader) int {
	n := 0
	for _, e := range r.wants {
		if !t.have.Covers(e) {
			n++
		}
	}
	return n
}

// many reports whether a caller's blob is fetched over several connections. t.mu is held.
func (t *transfer) many(want Want) bool {
	return want.Parallel > 1 && !want.Ahead && t.size > t.all.sizes.many && !t.all.single.has(t.from)
}

// spread returns what to fetch for a reader of these parts: with short gaps, and with what follows
// a part that begins where one that is present ends. t.mu is held.
func (t *transfer) spread(parts []extent.Extent) []extent.Extent {
	var wide extent.Set
	for _, e := range parts {
		if e.Len() < t.size && e.Start > 0 && t.have.RunFrom(e.Start-1) == e.Start {
			e.End = min(t.size, e.End+readAhead)
		}
		wide.Add(extent.Extent{Start: e.Start, End: e.End})
	}
	var all []extent.Extent
	for _, e := range wide.All() {
		if n := len(all); n > 0 && e.Start-all[n-1].End <= bridge {
			all[n-1].End = e.End
		} else {
			all = append(all, e)
		}
	}
	return all
}

// Upstream returns the name of the upstream that the bytes come from.
func (r *Reader) Upstream() string { return r.from }

// Stored reports whether what is read goes through the cache. Otherwise err is what prevents that,
// nil if nothing should be stored.
func (r *Reader) Stored() (ok bool, err error) { return r.stream == nil, r.why }

// Present returns how many bytes of the blob are in the cache.
func (r *Reader) Present() int64 {
	if r.t == nil {
		return 0
	}
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	return r.t.have.Bytes()
}

// isWhole reports whether the reader wants the whole.
func (r *Reader) isWhole() bool { return len(r.want.Ranges) == 0 }

// isLong reports whether the reader wants so much that several connections fetch it. t.mu is held.
func (r *Reader) isLong() bool {
	return r.isWhole() || len(r.wants) == 1 && r.wants[0].Len() > r.all.sizes.many
}

// front returns from where on a reader that wants much misses bytes. t.mu is held.
func (r *Reader) front() int64 {
	if len(r.wants) == 0 {
		return 0
	}
	return r.wants[0].Start
}

// Close leaves the transfer. If it was the last reader, the transfer ends, unless most of the blob
// is there. What is present stays on disk.
func (r *Reader) Close() error {
	r.close.Do(r.release)
	return nil
}

func (r *Reader) release() {
	if r.stream != nil {
		r.stream.close()
	}
	if r.done != nil {
		_ = r.done()
	} else if r.file != nil {
		r.file.Close()
	}
	if r.t != nil {
		r.t.leave(r)
	}
}

// Wait waits until the whole blob is verified, for a caller that does not want its bytes.
func (r *Reader) Wait(ctx context.Context) error {
	for {
		if r.t == nil && r.done != nil {
			return nil
		}
		if r.t == nil {
			return fmt.Errorf("%w: it is not stored", cache.ErrStorage)
		}
		r.t.mu.Lock()
		done, err, progress := r.t.done, r.t.err, r.t.progress
		r.t.mu.Unlock()
		if isSlow(err) {
			if err := r.replace(ctx, err, 0, 0, -1); err != nil {
				return err
			}
			continue
		}
		if done || err != nil {
			return err
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// WaitStored waits until the whole blob is verified and has been stored, or could not be.
func (r *Reader) WaitStored(ctx context.Context) error {
	if err := r.Wait(ctx); err != nil {
		return err
	}
	if r.t == nil {
		return nil
	}
	select {
	case <-r.t.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// CopyTo writes the bytes from start to end (-1: the blob's end) to w as they come in. Files go to
// the network by sendfile. If the bytes are the whole, the last of them go out only when it is
// verified: a client whose response ends cleanly has the content of the digest. If the upstream
// fails, another one continues, and what it sends is compared with what has gone out.
func (r *Reader) CopyTo(ctx context.Context, w io.Writer, start, end int64) (int64, error) {
	if end < 0 {
		end = r.Size
	}
	at := start
	for {
		n, err := r.copy(ctx, w, start, at, end)
		if n > 0 {
			r.sent.Add(extent.Extent{Start: at, End: at + n})
			at += n
		}
		var upstream *upstreamError
		if !errors.As(err, &upstream) {
			return at - start, err
		}
		if err := r.replace(ctx, upstream.err, start, at, end); err != nil {
			return at - start, err
		}
	}
}

// upstreamError is the failure of what a reader reads from: something else may do better.
type upstreamError struct{ err error }

func (e *upstreamError) Error() string { return e.err.Error() }

// copy writes the bytes from at on, of those from start to end.
func (r *Reader) copy(ctx context.Context, w io.Writer, start, at, end int64) (int64, error) {
	if r.stream != nil {
		return r.stream.copyTo(ctx, w, start, at, end)
	}
	if _, err := r.file.Seek(at, io.SeekStart); err != nil {
		return 0, &upstreamError{fmt.Errorf("%w: %w", cache.ErrStorage, err)}
	}
	var sent int64
	for {
		there, over, err := r.wait(ctx, start, at+sent, end)
		if err != nil {
			return sent, err
		}
		if n := there - (at + sent); n > 0 {
			m, err := io.Copy(w, &io.LimitedReader{R: r.file, N: n})
			sent += m
			if errors.Is(err, unix.EIO) { // of the disk: a client's connection has no such error
				return sent, &upstreamError{fmt.Errorf("%w: %w", cache.ErrStorage, err)}
			}
			if err != nil {
				return sent, err
			}
			if m < n {
				return sent, &upstreamError{fmt.Errorf("%w: the file is shorter than what was written to it", cache.ErrStorage)}
			}
		}
		if over {
			return sent, nil
		}
	}
}

// wait waits until there is more than at to send of the bytes from start to end, or they have ended.
// It returns up to where may be sent, and whether that is all.
func (r *Reader) wait(ctx context.Context, start, at, end int64) (there int64, over bool, err error) {
	t := r.t
	if t == nil {
		return end, true, nil // it is stored
	}
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		r.waitsAt = -1
	}()
	for {
		t.mu.Lock()
		if there, over, err = r.ready(start, at, end); over || err != nil || there > at {
			t.mu.Unlock()
			return there, over, err
		}
		if r.waitsAt != at {
			r.waitsAt = at
			t.schedule()
		}
		progress := t.progress
		t.mu.Unlock()
		select {
		case <-progress:
		case <-ctx.Done():
			return 0, false, ctx.Err()
		}
	}
}

// ready returns what may be sent now. t.mu is held.
func (r *Reader) ready(start, at, end int64) (there int64, over bool, err error) {
	t := r.t
	if t.err != nil {
		return 0, false, &upstreamError{t.err}
	}
	size := t.size
	if end < 0 && size >= 0 {
		end = size
	}
	whole := start == 0 && (end < 0 || end == size)
	there = t.have.RunFrom(at)
	if end >= 0 {
		there = min(there, end)
	}
	if whole && !t.done {
		if size >= 0 {
			there = min(there, max(size-heldBack, 0))
		} else {
			there = max(at, there-heldBack)
		}
		return max(there, at), false, nil
	}
	return there, end >= 0 && there >= end, nil
}

// stored returns a reader of a blob that is whole in the cache.
func (s *Transfers) stored(want Want) (*Reader, error) {
	b, err := s.dir.Blob(want.Digest, want.Untrusted)
	if err != nil {
		return nil, err
	}
	return &Reader{Size: b.Size, all: s, want: want, file: b.File, done: b.Close, waitsAt: -1}, nil
}
