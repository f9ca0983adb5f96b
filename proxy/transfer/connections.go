package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"github.com/sidemirror/sidemirror/internal/extent"
	"github.com/sidemirror/sidemirror/proxy/cache"
)

// stallTime is how long a connection may bring nothing before another one is opened for the same
// bytes.
const stallTime = 30 * time.Second

// conn is a connection that fetches an interval.
type conn struct {
	source Source
	by     string
	grant  func(string)
	ctx    context.Context
	cancel context.CancelFunc
	extra  bool // others are at work: it makes the transfer quicker, and is not needed

	// Under the transfer's mu.
	at, end int64 // the next byte, and where to stop; end -1: the body's end
	moving  bool  // bytes have come
	stalled bool
	brought int64 // bytes
	latest  time.Time
}

// singleError says that an upstream does not serve a second connection as it serves the first.
type singleError struct{ err error }

func (e *singleError) Error() string { return e.err.Error() }

func (e *singleError) Unwrap() error { return e.err }

// newConn makes a connection in the name of want's caller.
func (t *transfer) newConn(at, end int64, want Want) *conn {
	c := &conn{source: want.Source, by: want.By, grant: want.Verified, at: at, end: end, latest: time.Now()}
	c.ctx, c.cancel = context.WithCancel(t.life)
	return c
}

// attach starts a connection; part is what it has opened already, if it has. t.mu is held.
func (t *transfer) attach(c *conn, part Part) {
	t.conns = append(t.conns, c)
	t.last = c.source
	if t.tick == nil {
		t.since, t.moved = time.Now(), 0
		t.tick = time.AfterFunc(t.ramp.interval(), t.measure)
	}
	ahead := t.want.Ahead && !slices.ContainsFunc(t.readers, func(r *Reader) bool { return !r.want.Ahead })
	t.active.Go(func() {
		err := t.carry(c, part, ahead)
		ended := c.ctx.Err() != nil
		c.cancel()
		t.ended(c, err, ended)
	})
}

// carry opens a connection's interval and stores what comes.
func (t *transfer) carry(c *conn, part Part, ahead bool) error {
	began := time.Now()
	if part.Body == nil {
		t.mu.Lock()
		r := Range{c.at, c.end}
		t.mu.Unlock()
		t.all.requests.Add(1)
		var err error
		part, err = c.source.Open(c.ctx, r, Options{Only: t.from, Separate: c.extra, Resume: true, Ahead: ahead})
		if t.isEnd(r.Start, err) {
			return t.ends(r.Start)
		}
		if err != nil && c.extra && !errors.Is(err, ErrNoConnection) {
			return &singleError{err}
		}
		if err != nil {
			return err
		}
	}
	defer part.Body.Close()
	defer context.AfterFunc(c.ctx, func() { _ = part.Body.Close() })()
	if err := t.fits(c, part); err != nil {
		return err
	}
	opened := time.Now()
	off := part.Start
	buf := make([]byte, bufferSize)
	for {
		end := t.limit(c, off, part.End)
		if end >= 0 && off >= end {
			t.adapt(opened.Sub(began), time.Since(opened))
			return nil
		}
		b := buf
		if end >= 0 {
			b = buf[:min(int64(len(buf)), end-off)]
		}
		n, err := part.Body.Read(b)
		if c.ctx.Err() != nil {
			return c.ctx.Err()
		}
		if n > 0 {
			if err := t.store(c, b[:n], off); err != nil {
				return err
			}
			off += int64(n)
		}
		switch {
		case err == nil:
		case !errors.Is(err, io.EOF):
			return err
		case end < 0:
			return t.ends(off)
		case off < t.limit(c, off, part.End):
			return io.ErrUnexpectedEOF
		}
	}
}

// fits looks whether what an upstream sends can be joined to what is there.
func (t *transfer) fits(c *conn, part Part) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case part.Start > c.at:
		err := errors.New("the upstream sent another range than was asked for")
		if c.extra {
			return &singleError{err}
		}
		return err
	case part.Total >= 0 && t.size >= 0 && part.Total != t.size:
		if c.extra {
			return &singleError{fmt.Errorf("the size is %d now, and was %d", part.Total, t.size)}
		}
		return ErrMismatch
	case c.extra && part.Start < c.at:
		return &singleError{errors.New("the upstream answered a Range with the whole")}
	case c.extra && part.ETag != t.etag && part.ETag != "" && t.etag != "":
		return &singleError{errors.New("the ETag is another one now")}
	}
	if part.Start < c.at {
		t.ranged = false // what is skipped is compared
	}
	if t.size < 0 && part.Total >= 0 {
		t.sized(part.Total)
	}
	if c.end < 0 && t.size >= 0 {
		c.end = t.size
	}
	if t.etag == "" {
		t.etag = part.ETag
	}
	if _, known := t.admitted[c.by]; !known {
		t.admitted[c.by] = c.grant
	}
	return nil
}

// limit returns up to which byte the connection reads its body, which ends at bodyEnd: -1 if the
// size is unknown. A body that has more than was asked for is read on as long as a reader
// wants what comes and no other connection brings it.
func (t *transfer) limit(c *conn, off, bodyEnd int64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.size < 0 {
		return -1
	}
	if bodyEnd < 0 {
		bodyEnd = t.size
	}
	if !t.ranged {
		c.end = t.size
	}
	if off >= c.end && c.end < bodyEnd && t.err == nil {
		claimed := t.claimed()
		if gap, ok := claimed.missing(extent.Extent{Start: off, End: bodyEnd}); ok && gap.Start == off && t.wanted(off) {
			c.end = gap.End
			if t.ramp.allowed > 1 {
				c.end = min(gap.End, off+t.piece)
			}
		}
	}
	return min(c.end, bodyEnd)
}

// wanted reports whether a reader wants the byte at off. t.mu is held.
func (t *transfer) wanted(off int64) bool {
	return t.finish || slices.ContainsFunc(t.readers, func(r *Reader) bool {
		return slices.ContainsFunc(r.wants, func(e extent.Extent) bool { return e.Start <= off && off < e.End })
	})
}

// store stores b, the bytes at off, and compares what is present already: two bodies are never
// spliced unseen.
func (t *transfer) store(c *conn, b []byte, off int64) error {
	t.all.fetched.Add(int64(len(b)))
	for len(b) > 0 {
		t.mu.Lock()
		there := t.have.RunFrom(off)
		gap, _ := t.have.Missing(extent.Extent{Start: off, End: off + int64(len(b))})
		t.mu.Unlock()
		n := int64(len(b))
		if there > off {
			n = min(n, there-off)
			if err := t.compare(b[:n], off); err != nil {
				return err
			}
			t.moveOn(c, off+n, n)
		} else {
			n = gap.Len()
			if err := t.add(c, b[:n], off); err != nil {
				return err
			}
		}
		off += n
		b = b[n:]
		if err := t.hashMore(); err != nil {
			return err
		}
	}
	return nil
}

// add stores b, the bytes at off, of which none is there. The first bytes of a connection are hashed
// after its readers were woken, which can send them meanwhile.
func (t *transfer) add(c *conn, b []byte, off int64) error {
	if err := t.partial.WriteAt(c.ctx, b, off); err != nil {
		return err
	}
	end := off + int64(len(b))
	if !t.begins(c, end) {
		t.sum.feed(b, off)
		t.moveOn(c, end, int64(len(b)))
		return nil
	}
	t.moveOn(c, end, int64(len(b)))
	runtime.Gosched()
	t.sum.feed(b, off)
	return nil
}

// begins reports whether the bytes before end are the first of a connection, and not the blob's last.
func (t *transfer) begins(c *conn, end int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !c.moving && end != t.size
}

// compare compares b with what is present at off.
func (t *transfer) compare(b []byte, off int64) error {
	ours := make([]byte, len(b))
	if _, err := t.partial.ReadAt(ours, off); err != nil {
		return fmt.Errorf("%w: %w", cache.ErrStorage, err)
	}
	if !bytes.Equal(ours, b) {
		return ErrMismatch
	}
	return nil
}

// moveOn records that the n bytes before off are there.
func (t *transfer) moveOn(c *conn, off, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.have.Add(extent.Extent{Start: off - n, End: off})
	t.moved += n
	if t.fresh += n; t.fresh >= minProgress {
		t.resumes = 0
	}
	c.brought += n
	c.at, c.moving, c.stalled, c.latest = max(c.at, off), true, false, time.Now()
	for _, other := range t.conns {
		if other != c && other.stalled && other.at < off {
			other.cancel() // this one has taken over
		}
	}
	t.wake()
	if t.complete() {
		t.check()
	}
}

// hashMore hashes what other connections have brought before, when the front has come there.
func (t *transfer) hashMore() error {
	t.mu.Lock()
	front := t.have.RunFrom(0)
	t.mu.Unlock()
	if t.sum.behind(front) < 4*bufferSize {
		return nil
	}
	if err := t.sum.catchUp(t.partial, front, false); err != nil {
		return fmt.Errorf("%w: %w", cache.ErrStorage, err)
	}
	return nil
}

// ends records that a blob of unknown size ends at off.
func (t *transfer) ends(off int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.have.RunFrom(0) > off {
		return ErrMismatch
	}
	t.sized(off)
	if t.complete() {
		t.check()
	}
	return nil
}

// isEnd reports whether err says that a blob of unknown size ends at off.
func (t *transfer) isEnd(off int64, err error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.size < 0 && isEnd(err, off)
}

// sized records the size when it turns out. t.mu is held.
func (t *transfer) sized(size int64) {
	t.size = size
	for _, r := range t.readers {
		r.wants = []extent.Extent{{Start: 0, End: size}}
	}
	t.wake()
}

// adapt makes pieces longer if their requests are short compared with the round trip.
func (t *transfer) adapt(wait, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if took < 8*wait {
		t.piece = min(2*t.piece, t.all.sizes.mostPiece)
	}
}
