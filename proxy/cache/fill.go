package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

const (
	fillBuffer  = 256 << 10
	maxResumes  = 3 // in a row without minProgress bytes: a byte an answer is none
	minProgress = 256 << 10
	resumePause = 200 * time.Millisecond

	// growth is how much room is made at a time for content of unknown size.
	growth = fillBuffer
)

// Errors of a fill. None of them says anything about the content that is asked for: a source says
// that with errors of its own.
var (
	// ErrMismatch says that the bytes that came do not match the digest. A client that was sent
	// some of them must see a broken connection.
	ErrMismatch = errors.New("the bytes do not match the digest")

	// ErrStorage says that the content could not be stored: the disk is full, broken or cannot be
	// written. It can still be had from its source.
	ErrStorage = errors.New("the cache cannot store it")

	// ErrForeign says that the content is being fetched in another name, and that the caller has
	// not shown that it may have it.
	ErrForeign = errors.New("it is being fetched for another caller")
)

// Part is content from an offset on.
type Part struct {
	Body   io.ReadCloser
	Offset int64 // of the body's first byte: the one asked for, or 0 from a source that cannot resume
	Total  int64 // the whole content's size; -1 if unknown
}

// Source opens content at an offset. It may be called again, to resume.
type Source func(ctx context.Context, offset int64) (Part, error)

// Want is what is asked of Fill.
type Want struct {
	Digest digest.Digest

	// By is in whose name the source asks. Callers of the same name share a refusal of the source.
	By string

	// Granted says that the caller is known to be allowed the content, whichever caller it is
	// fetched for.
	Granted bool

	// Untrusted says that the caller is untrusted: what it has fetched has a share of the
	// cache.
	Untrusted bool

	// Verified, if not nil, is called when this caller's source has sent the whole content and
	// it has the digest, before the last byte of it is given to anyone.
	Verified func()
}

// fill is one blob that is being fetched. One goroutine writes, any number of streams read.
type fill struct {
	dir    *Dir
	want   Want
	cancel context.CancelFunc

	opened  chan struct{} // closed when the source has answered
	openErr error         // settled then

	trusted atomic.Bool // a trusted caller wants it
	room    *reservation

	name  string
	file  *os.File
	total atomic.Int64 // -1 if unknown; settled once opened

	written  atomic.Int64
	mu       sync.Mutex
	progress chan struct{} // closed and replaced when there is more, or the end
	ended    bool
	err      error // after the end
	streams  int
	givenUp  bool
	gone     chan struct{} // closed when the fill is out of the way
}

// Fill joins the fetching of a blob, or begins it: there is one fetch per digest, however many
// callers ask. The source is asked in a context that lives as long as a stream is open.
func (d *Dir) Fill(ctx context.Context, want Want, src Source) (*Stream, error) {
	for {
		f, err := d.enter(want, src)
		if err != nil {
			return nil, err
		}
		select {
		case <-f.opened:
		case <-ctx.Done():
			f.leave()
			return nil, ctx.Err()
		}
		if f.openErr == nil {
			s, err := f.stream()
			if err != nil {
				f.leave()
			}
			return s, err
		}
		f.leave()
		// That another caller was refused, or left, is no answer to this one.
		// The share of untrusted callers is no bound for a trusted one.
		full := errors.Is(f.openErr, ErrStorage) && f.want.Untrusted == want.Untrusted
		if (f.want.By == want.By && !errors.Is(f.openErr, ErrStorage) || full) && !errors.Is(f.openErr, context.Canceled) {
			return nil, f.openErr
		}
	}
}

// Filling reports whether a blob is being fetched.
func (d *Dir) Filling(dgst digest.Digest) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fills[dgst] != nil
}

// enter joins the fill of a digest, or starts one.
func (d *Dir) enter(want Want, src Source) (*fill, error) {
	for {
		d.mu.Lock()
		f := d.fills[want.Digest]
		switch {
		case d.closed:
			d.mu.Unlock()
			return nil, ErrStorage
		case f == nil && want.Untrusted && d.untrustedFills >= maxUntrustedFills:
			d.mu.Unlock()
			return nil, ErrBusy
		case f == nil:
			f = d.start(want, src)
			d.mu.Unlock()
			return f, nil
		case f.want.By != want.By && !want.Granted:
			d.mu.Unlock()
			return nil, ErrForeign
		}
		joined := f.join()
		if joined && !want.Untrusted {
			f.trusted.Store(true)
		}
		d.mu.Unlock()
		if joined {
			return f, nil
		}
		<-f.gone // it was given up this moment, and is soon out of the way
	}
}

func (d *Dir) start(want Want, src Source) *fill {
	ctx, cancel := context.WithCancel(context.Background())
	f := &fill{
		dir: d, want: want, cancel: cancel, streams: 1,
		opened: make(chan struct{}), gone: make(chan struct{}), progress: make(chan struct{}),
	}
	f.total.Store(-1)
	f.trusted.Store(!want.Untrusted)
	if want.Untrusted {
		d.untrustedFills++
	}
	d.fills[want.Digest] = f
	d.running.Go(func() { f.run(ctx, src) })
	return f
}

// join counts one stream more, unless the fill has been given up.
func (f *fill) join() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.givenUp {
		f.streams++
	}
	return !f.givenUp
}

// leave ends one stream. When the last one ends, so does the fill, unless more than half is there:
// that is worth finishing.
func (f *fill) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streams--
	if f.streams == 0 && !f.ended && (f.total.Load() < 0 || 2*f.written.Load() <= f.total.Load()) {
		f.givenUp = true
		f.cancel()
	}
}

// run fetches, verifies and commits.
func (f *fill) run(ctx context.Context, src Source) {
	defer f.cancel()
	part, err := f.open(ctx, src)
	if err != nil {
		f.openErr = err
		f.forget()
		close(f.opened)
		return
	}
	close(f.opened)
	err = f.fetch(ctx, src, part)
	if err != nil {
		f.end(err)
		f.forget()
		f.discard()
		return
	}
	if f.want.Verified != nil {
		f.want.Verified()
	}
	// The streams need not wait for the disk.
	f.end(nil)
	if err := f.commit(); err != nil {
		f.discard()
	}
	f.forget()
}

// open asks the source and makes the file.
func (f *fill) open(ctx context.Context, src Source) (Part, error) {
	part, err := src(ctx, 0)
	if err != nil {
		return part, err
	}
	f.total.Store(part.Total)
	if err := f.create(ctx); err != nil {
		_ = part.Body.Close()
		return part, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return part, nil
}

// create makes the partial file and reserves room for all of it, so that a full disk shows before
// the first byte and not in the middle.
func (f *fill) create(ctx context.Context) error {
	var err error
	if f.room, err = f.dir.reserve(ctx, f.total.Load(), !f.trusted.Load()); err != nil {
		return err
	}
	f.name = f.dir.partialName(f.want.Digest.Encoded()[:16])
	file, err := f.dir.createPartial(f.name, os.O_RDWR)
	if err != nil {
		return err
	}
	if f.total.Load() > 0 {
		err = unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, f.total.Load())
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
			file.Close()
			_ = f.dir.root.Remove(f.name)
			return fmt.Errorf("reserving %d bytes: %w", f.total.Load(), err)
		}
		f.room.wrote(f.total.Load())
	}
	f.file = file
	return nil
}

// commit gives the file its final name.
func (f *fill) commit() error {
	untrusted := !f.trusted.Load()
	if untrusted {
		if err := f.file.Chmod(untrustedMode); err != nil {
			return err
		}
	}
	if err := f.dir.commit(f.file, f.name, contentPath("blobs", f.want.Digest)); err != nil {
		return err
	}
	if !untrusted {
		f.room.trust()
	}
	f.room.commit(contentPath("blobs", f.want.Digest), f.written.Load())
	return f.file.Close()
}

func (f *fill) discard() {
	_ = f.file.Close()
	if err := f.dir.root.Remove(f.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		// It stays until the next start clears the folder: nothing reads it.
		return
	}
}

func (f *fill) forget() {
	if f.room != nil {
		f.room.release()
	}
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	if f.want.Untrusted {
		f.dir.untrustedFills--
	}
	delete(f.dir.fills, f.want.Digest)
	close(f.gone)
}

func (f *fill) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.progress)
	f.progress = make(chan struct{})
}

func (f *fill) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended, f.err = true, err
	close(f.progress)
}
