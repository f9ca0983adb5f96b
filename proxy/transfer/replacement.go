package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

// replace lets the reader go on after a failure: past the cache if that failed, or with another
// upstream.
func (r *Reader) replace(ctx context.Context, cause error, start, at, end int64) error {
	if errors.Is(cause, errClosed) || ctx.Err() != nil {
		return cause
	}
	if errors.Is(cause, cache.ErrStorage) {
		return r.bypass(cause, start, at, end)
	}
	r.used = append(r.used, r.from)
	if isSlow(cause) {
		r.left = r.from
	}
	next, err := r.openNext(ctx, r.used)
	if err == nil {
		if err = r.follows(ctx, next, start, at); err == nil {
			r.follow(next)
			return nil
		}
		cause = err
		r.used = append(r.used, next.from)
		next.Close()
	}
	// The one that was only slow is better than nothing.
	if r.left == "" || errors.Is(err, ErrMismatch) && next != nil || ctx.Err() != nil {
		return cause
	}
	r.used = slices.DeleteFunc(r.used, func(name string) bool { return name == r.left })
	r.left = ""
	if next, err = r.openNext(ctx, r.used); err != nil {
		return cause
	}
	if err := r.follows(ctx, next, start, at); err != nil {
		next.Close()
		return err
	}
	r.follow(next)
	return nil
}

// follows returns nil if what another reader has is the same blob, as far as it has gone out.
func (r *Reader) follows(ctx context.Context, next *Reader, start, at int64) error {
	if next.Size != r.Size {
		return ErrMismatch
	}
	return r.compareSent(ctx, next, start, at)
}

// follow makes the reader read from where next does.
func (r *Reader) follow(next *Reader) {
	r.release()
	r.t, r.file, r.done, r.stream, r.from, r.why = next.t, next.file, next.done, next.stream, next.from, next.why
	if r.t != nil {
		r.t.mu.Lock()
		defer r.t.mu.Unlock()
		r.wants = next.wants
		r.t.readers[slices.Index(r.t.readers, next)] = r
	}
}

// openNext opens the blob anew, without some upstreams.
func (r *Reader) openNext(ctx context.Context, without []string) (*Reader, error) {
	if len(r.all.candidates(r.want, without)) == 0 {
		return nil, ErrMismatch
	}
	next, err := r.all.open(ctx, r.want, without)
	if errors.Is(err, ErrStored) {
		return r.all.stored(r.want)
	}
	return next, err
}

// compareSent compares what has gone out with what another upstream sends.
func (r *Reader) compareSent(ctx context.Context, next *Reader, start, at int64) error {
	if next.stream != nil {
		return next.stream.follow(r.file, start, at, true)
	}
	for _, e := range r.sent.All() {
		for off := e.Start; off < e.End; {
			there, _, err := next.wait(ctx, off, off, min(e.End, off+bufferSize))
			if err != nil {
				return err
			}
			ours, theirs := make([]byte, there-off), make([]byte, there-off)
			if _, err := r.file.ReadAt(ours, off); err != nil {
				return fmt.Errorf("%w: %w", cache.ErrStorage, err)
			}
			if _, err := next.file.ReadAt(theirs, off); err != nil {
				return fmt.Errorf("%w: %w", cache.ErrStorage, err)
			}
			if !bytes.Equal(ours, theirs) {
				return ErrMismatch
			}
			off = there
		}
	}
	return nil
}

// bypass lets the reader go on past the cache, which cannot store more. If what has gone out cannot be
// read, the whole cannot be verified.
func (r *Reader) bypass(cause error, start, at, end int64) error {
	next := newStream(r.all, r.want, r.used)
	next.from, next.size = r.from, r.Size
	if err := next.follow(r.file, start, at, false); err != nil {
		if start == 0 && (end < 0 || end == r.Size) {
			return errors.Join(cause, err)
		}
		next.followAlone(start, at)
	}
	r.release()
	r.t, r.file, r.done, r.stream, r.why = nil, nil, nil, next, cause
	return nil
}
