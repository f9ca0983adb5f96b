package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	verifiers    = 4 // files read at a time, at most: a disk's queue, not its whole
	verifyBuffer = 1 << 20
)

// Verified is what Verify found.
type Verified struct {
	Files int   // of content that were read
	Bytes int64 // in them
	Wrong []Wrong
}

// Wrong is a file that was wrong, and that is removed.
type Wrong struct {
	Path string // in the cache's folder
	Why  error
}

// Verify reads all that is kept and compares it with its digests. What is wrong is
// removed with the records of who holds it, so that it is fetched again. progress, if
// not nil, is told from time to time of how many bytes are done. A daemon may be using
// the cache. An error says that something could not be looked at or not be removed.
func (d *Dir) Verify(ctx context.Context, progress func(done, total int64)) (*Verified, error) {
	var all []Content
	var total int64
	err := d.Walk(ctx, func(c Content) error {
		all = append(all, c)
		total += c.Size
		return nil
	})
	if err != nil {
		return nil, err
	}
	v := &verification{dir: d, total: total, progress: progress, found: &Verified{}, gone: map[digest.Digest]bool{}}
	group, reading := errgroup.WithContext(ctx)
	group.SetLimit(min(verifiers, runtime.GOMAXPROCS(0)))
	for _, c := range all {
		group.Go(func() error { return v.content(reading, c) })
	}
	err = group.Wait()
	// Also what was found before something went wrong is gone from the disk.
	d.recent.drop(v.gone)
	return v.found, errors.Join(err, d.forgetGone(v.gone), v.records(ctx, err))
}

// verification is one going through of a cache.
type verification struct {
	dir      *Dir
	total    int64
	progress func(done, total int64)

	mu    sync.Mutex
	found *Verified
	gone  map[digest.Digest]bool
}

// content reads a file, and removes it if it is not its digest or the disk cannot
// read it.
func (v *verification) content(ctx context.Context, c Content) error {
	why, err := v.hash(ctx, c)
	if err != nil {
		return ignoreMissing(err)
	}
	if why == nil {
		return nil
	}
	if err := ignoreMissing(v.dir.root.Remove(c.path())); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.gone[c.Digest] = true
	v.found.Wrong = append(v.found.Wrong, Wrong{c.path(), why})
	return nil
}

// hash says why a file is wrong, or why that cannot be known.
func (v *verification) hash(ctx context.Context, c Content) (why, err error) {
	f, err := v.dir.root.Open(c.path())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Advice: what does not take it reads as well.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
	sum := c.Digest.Algorithm().Hash()
	var size int64
	for buf := make([]byte, min(c.Size+1, verifyBuffer)); ; {
		n, err := f.Read(buf)
		sum.Write(buf[:n])
		size += int64(n)
		v.read(int64(n))
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, io.EOF):
			v.counted()
			if digest.NewDigest(c.Digest.Algorithm(), sum) != c.Digest {
				return fmt.Errorf("its %d bytes are not its digest", size), nil
			}
			return nil, nil
		case errors.Is(err, unix.EIO), errors.Is(err, unix.EUCLEAN):
			v.counted()
			return err, nil
		case err != nil:
			return nil, err
		}
	}
}

func (v *verification) read(n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.found.Bytes += n
	if v.progress != nil {
		v.progress(min(v.found.Bytes, v.total), v.total)
	}
}

func (v *verification) counted() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.found.Files++
}

// records removes those that cannot be read, as a power failure leaves them. They are
// written without waiting for the disk, and are missed by nobody.
func (v *verification) records(ctx context.Context, before error) error {
	if before != nil {
		return nil
	}
	return v.dir.records(ctx, func(r record) error {
		most := int64(maxRecord)
		if r.kind == "_answers" {
			most = 2 * maxAnswer
		}
		var any json.RawMessage
		err := v.dir.readFile(r.path, most, &any)
		var syntax *json.SyntaxError
		if !errors.As(err, &syntax) {
			return ignoreMissing(err)
		}
		v.found.Wrong = append(v.found.Wrong, Wrong{r.path, fmt.Errorf("it is torn: %s", strings.ToLower(syntax.Error()))})
		return ignoreMissing(v.dir.root.Remove(r.path))
	})
}
