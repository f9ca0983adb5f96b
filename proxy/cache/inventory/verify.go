package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/proxy/cache"
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

// Verify reads everything that is stored and compares it with its digests. It removes what is
// wrong, with the records of which repositories hold it, so that it is fetched again. It calls
// progress, if that is not nil, from time to time with the number of bytes read. A daemon may
// be using the cache. An error says that something could not be read or not be removed.
func Verify(ctx context.Context, d *cache.Dir, progress func(done, total int64)) (*Verified, error) {
	var all []cache.Content
	var total int64
	err := d.Walk(ctx, func(c cache.Content) error {
		all = append(all, c)
		total += c.Size
		return nil
	})
	if err != nil {
		return nil, err
	}
	v := &verification{dir: d, total: total, progress: progress, found: &Verified{}}
	group, reading := errgroup.WithContext(ctx)
	group.SetLimit(min(verifiers, runtime.GOMAXPROCS(0)))
	for _, c := range all {
		group.Go(func() error { return v.content(reading, c) })
	}
	err = group.Wait()
	// What was found before something went wrong is removed too.
	_, removeErr := d.RemoveContent(context.WithoutCancel(ctx), v.wrong)
	return v.found, errors.Join(err, removeErr, v.records(ctx, err))
}

// verification is one going through of a cache.
type verification struct {
	dir      *cache.Dir
	total    int64
	progress func(done, total int64)

	mu    sync.Mutex
	found *Verified
	wrong []cache.Content
}

// content reads a file, and condemns it if it does not match its digest or the disk cannot
// read it.
func (v *verification) content(ctx context.Context, c cache.Content) error {
	why, err := v.hash(ctx, c)
	if err != nil {
		return ignoreMissing(err)
	}
	if why == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wrong = append(v.wrong, c)
	v.found.Wrong = append(v.found.Wrong, Wrong{c.Path(), why})
	return nil
}

// hash says why a file is wrong, or why that cannot be known.
func (v *verification) hash(ctx context.Context, c cache.Content) (why, err error) {
	f, err := v.dir.OpenContent(c)
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
				return fmt.Errorf("its %d bytes do not match its digest", size), nil
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

// records removes those that cannot be read, as a power failure leaves them: they are written
// without waiting for the disk.
func (v *verification) records(ctx context.Context, before error) error {
	if before != nil {
		return nil
	}
	return v.dir.Records(ctx, func(r cache.Record) error {
		err := v.dir.CheckRecord(r)
		var syntax *json.SyntaxError
		if !errors.As(err, &syntax) {
			return ignoreMissing(err)
		}
		v.found.Wrong = append(v.found.Wrong, Wrong{r.Path, fmt.Errorf("it is torn: %s", strings.ToLower(syntax.Error()))})
		return v.dir.RemoveRecord(r)
	})
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
