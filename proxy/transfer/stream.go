package transfer

import (
	"context"
	"errors"
	"hash"
	"io"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

// stream passes a blob on without storing it: over one connection, in order, with no more of it in
// memory than a buffer. What it has read it remembers by its hash alone.
type stream struct {
	all  *Transfers
	want Want
	used []string // upstreams not to ask any more
	left string   // one of them, which was only slow

	from   string // the upstream; empty: any
	size   int64  // -1: unknown
	part   Part   // that is open; its Body is nil if none is
	off    int64  // of the body's next byte
	unsure bool   // what was read came from another upstream, and must be compared

	asked     int64     // start of the interval that its reader wants
	start     int64     // of what is read of it
	read      int64     // of the next byte to read
	delivered int64     // of the next byte to deliver
	sum       hash.Hash // of what is read
	resumes   int
	fresh     int64 // bytes since the last resume

	deliveredSum hash.Hash // of what is delivered, while the last bytes are held back
}

const streamBuffer = 64 << 10

func newStream(s *Transfers, want Want, used []string) *stream {
	want.Source = newStreamSource(s, want)
	return &stream{all: s, want: want, used: slices.Clone(used), size: -1, sum: want.Digest.Algorithm().Hash()}
}

// openStream opens a blob past the cache. What its reader reads later ends with ctx too.
func (s *Transfers) openStream(ctx context.Context, want Want, used []string) (*Reader, error) {
	if want.Ahead { // there is no client to send it to
		return nil, cache.ErrStorage
	}
	names := s.candidates(want, used)
	if len(names) == 0 {
		return nil, ErrMismatch
	}
	m := newStream(s, want, used)
	part, err := openFirst(ctx, m.want, without(want.Source, names))
	if err != nil {
		return nil, err
	}
	m.part, m.from, m.size, m.off = part, part.From, part.Total, part.Start
	if m.size >= 0 {
		if _, err := resolve(want.Ranges, m.size); err != nil {
			m.close()
			return nil, err
		}
	}
	return &Reader{Size: m.size, all: s, want: want, from: m.from, stream: m, waitsAt: -1}, nil
}

func (m *stream) close() {
	if m.part.Body != nil {
		_ = m.part.Body.Close()
		m.part.Body = nil
	}
}

// reset begins an interval.
func (m *stream) reset(start int64) {
	m.asked, m.start, m.read, m.delivered = start, start, start, start
	m.sum.Reset()
}

// followAlone continues where a reader of a file that cannot be read any more has come to, in the
// middle of an interval that is not verified.
func (m *stream) followAlone(start, at int64) {
	m.reset(at)
	m.asked = start
}

// follow continues where a reader of a file has come to. If the file is from another upstream,
// what it has is compared.
func (m *stream) follow(file io.ReaderAt, start, at int64, another bool) error {
	m.reset(start)
	n, err := io.Copy(m.sum, io.NewSectionReader(file, start, at-start))
	if err == nil && n < at-start {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return errors.Join(cache.ErrStorage, err)
	}
	m.read, m.delivered, m.unsure = at, at, another
	return nil
}

// copyTo delivers the bytes from at to end (-1: the blob's end). Those from start to at are
// delivered.
func (m *stream) copyTo(ctx context.Context, w io.Writer, start, at, end int64) (sent int64, err error) {
	if m.asked != start || m.delivered != at {
		m.reset(start)
	}
	deliver := func(b []byte) error {
		n, err := w.Write(b)
		sent += int64(n)
		m.delivered += int64(n)
		return err
	}
	for {
		if end < 0 {
			err = m.copyUnsized(ctx, deliver)
		} else {
			err = m.copySized(ctx, deliver, end)
		}
		if !errors.Is(err, ErrMismatch) || !m.beginAgain() {
			return sent, err
		}
	}
}

// beginAgain prepares for another upstream after a mismatch, and reports whether there is one.
// What is delivered is compared with what that one sends.
func (m *stream) beginAgain() bool {
	fresh := m.delivered == m.start
	if m.unsure {
		// This upstream has other bytes than one before it. Which of the two is wrong shows only
		// if its own are read from the start.
		m.close()
		m.reset(m.start)
		m.unsure = false
		return fresh
	}
	if !m.another() {
		return false
	}
	if fresh {
		m.reset(m.start)
		return true
	}
	if m.read > m.delivered {
		if m.deliveredSum == nil {
			return false
		}
		m.sum = m.deliveredSum
	}
	m.read, m.unsure, m.deliveredSum = m.delivered, true, nil
	return true
}

// cloneSum returns the hash of what is read so far; nil if its algorithm does not allow that.
func (m *stream) cloneSum() hash.Hash {
	if c, ok := m.sum.(hash.Cloner); ok {
		if sum, err := c.Clone(); err == nil {
			return sum
		}
	}
	return nil
}

// another condemns the upstream that was read, and reports whether there is another one. If none was,
// all that are left were asked in vain.
func (m *stream) another() bool {
	m.close()
	if m.from == "" {
		m.used = append(m.used, m.want.Source.Upstreams()...)
	} else {
		m.all.condemned.add(condemnedKey(m.want.Digest, m.from))
		m.used = append(m.used, m.from)
	}
	m.from = ""
	m.resumes = 0
	return len(m.all.candidates(m.want, m.used)) > 0 || m.comeBack()
}

// copySized delivers up to end. The last bytes of a whole blob are delivered when it is verified.
func (m *stream) copySized(ctx context.Context, deliver func([]byte) error, end int64) error {
	whole := m.start == 0 && end == m.size
	tail := end
	if whole {
		tail = max(end-heldBack, 0)
	}
	buf := make([]byte, streamBuffer)
	for m.read < tail {
		n, err := m.next(ctx, buf[:min(int64(len(buf)), tail-m.read)], end)
		if err != nil {
			return err
		}
		if err := deliver(buf[:n]); err != nil {
			return err
		}
	}
	n := 0
	m.deliveredSum = m.cloneSum()
	for m.read < end {
		got, err := m.next(ctx, buf[n:n+int(end-m.read)], end)
		if err != nil {
			return err
		}
		n += got
	}
	if whole && !m.verified() {
		return ErrMismatch
	}
	if n == 0 {
		return nil
	}
	return deliver(buf[:n])
}

// copyUnsized delivers a blob of unknown size. It holds a part back until the next one has come.
func (m *stream) copyUnsized(ctx context.Context, deliver func([]byte) error) error {
	buf, held := make([]byte, streamBuffer), make([]byte, 0, streamBuffer)
	for m.size < 0 || m.read < m.size { // the size may turn out
		withHeld := m.cloneSum()
		n, err := m.next(ctx, buf, -1)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if len(held) > 0 {
			if err := deliver(held); err != nil {
				return err
			}
		}
		m.deliveredSum = withHeld
		buf, held = held[:cap(held)], buf[:n]
	}
	if m.start == 0 && !m.verified() {
		return ErrMismatch
	}
	if len(held) == 0 {
		return nil
	}
	return deliver(held)
}

func (m *stream) verified() bool {
	if digest.NewDigest(m.want.Digest.Algorithm(), m.sum) == m.want.Digest {
		return true
	}
	m.all.refused.Add(m.read)
	return false
}

// next reads the next bytes, and resumes if the upstream breaks off. It returns io.EOF only at the
// end of a blob whose size was unknown.
func (m *stream) next(ctx context.Context, b []byte, end int64) (int, error) {
	for {
		n, err := m.try(ctx, b, end)
		if n > 0 || errors.Is(err, io.EOF) {
			m.sum.Write(b[:n])
			m.read += int64(n)
			return n, err
		}
		m.close()
		if err == nil || errors.Is(err, ErrMismatch) || ctx.Err() != nil {
			return 0, err
		}
		m.fresh = 0
		if m.leave(err) {
			continue
		}
		if m.resumes++; m.resumes > maxResumes {
			broken := &brokenError{m.read, err}
			if !m.another() {
				return 0, broken
			}
			m.unsure = true
			continue
		}
		if err := sleep(ctx, resumeAfter(m.resumes, err)); err != nil {
			return 0, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return ctx.Err() // of two that are ready select takes either
	}
}

// try reads from the body, and opens one if none is open.
func (m *stream) try(ctx context.Context, b []byte, end int64) (int, error) {
	if err := m.position(ctx, end); err != nil {
		return 0, err
	}
	for {
		n, err := m.part.Body.Read(b)
		m.off += int64(n)
		if m.fresh += int64(n); m.fresh >= minProgress {
			m.resumes = 0
		}
		switch {
		case n > 0:
			return n, nil // an error comes again
		case errors.Is(err, io.EOF) && m.size < 0:
			return 0, io.EOF
		case errors.Is(err, io.EOF):
			return 0, io.ErrUnexpectedEOF
		case err != nil:
			return 0, err
		}
	}
}

// position brings the body to the next byte to read.
func (m *stream) position(ctx context.Context, end int64) error {
	if m.part.Body != nil {
		if m.off == m.read && !m.unsure && (m.part.End < 0 || m.part.End > m.off) {
			return nil
		}
		has := m.part.End < 0 || m.part.End > m.start
		if m.off <= m.start && has && (m.unsure || !m.part.Ranged || m.start-m.off < m.all.sizes.nearby) {
			return m.skip()
		}
		m.close()
	}
	r := Range{m.read, end}
	if m.unsure {
		r.Start = m.start
	}
	part, err := m.want.Source.Open(ctx, r, Options{Only: m.from, Without: m.used, Resume: m.read > m.start})
	if isEnd(err, m.read) && m.size < 0 && !m.unsure {
		return io.EOF // nothing was missing but the end
	}
	if err != nil {
		return err
	}
	m.part, m.off, m.from = part, part.Start, part.From
	if m.size >= 0 && part.Total >= 0 && part.Total != m.size {
		return ErrMismatch
	}
	m.size = max(m.size, part.Total)
	if m.off == m.read && !m.unsure {
		return nil
	}
	return m.skip()
}

// isEnd reports whether err says that a blob ends at off.
func isEnd(err error, off int64) bool {
	var none *UnsatisfiableError
	return errors.As(err, &none) && none.Size == off
}

// skip reads up to the next byte to read. What was read before is compared by its hash: two bodies
// are never spliced unseen.
func (m *stream) skip() error {
	if m.off > m.start {
		return errors.New("the upstream sent another range than was asked for")
	}
	n, err := io.CopyN(io.Discard, m.part.Body, m.start-m.off)
	if m.off += n; err != nil {
		return noEOF(err)
	}
	again := m.want.Digest.Algorithm().Hash()
	n, err = io.CopyN(again, m.part.Body, m.read-m.off)
	if m.off += n; err != nil {
		return noEOF(err)
	}
	if string(again.Sum(nil)) != string(m.sum.Sum(nil)) {
		return ErrMismatch
	}
	m.unsure = false
	return nil
}

// noEOF returns err. What ends while it is skipped has broken off.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
