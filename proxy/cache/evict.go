package cache

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Limits bound the cache.
type Limits struct {
	MaxSize int64 // bytes of content; 0: no bound

	// MinFree and MinFreeShare are what is left free of the filesystem: bytes, and a
	// share of it from 0 to 1. The larger counts.
	MinFree      int64
	MinFreeShare float64
}

const (
	// lowMark is how far an eviction goes below MaxSize, so that the next fill does
	// not need one again.
	lowMark = 0.95

	// manifestsOutlive is by how much a manifest is taken for used later than it was:
	// without it the blobs of its image are of no use.
	manifestsOutlive = 7 * 24 * time.Hour

	recountEvery = time.Hour
)

// SetLimits changes the bounds; what is kept already is under them too.
func (d *Dir) SetLimits(l Limits) {
	d.limits.Store(&l)
	d.askForRoom()
}

func (d *Dir) askForRoom() {
	select {
	case d.crowd <- struct{}{}:
	default: // it is asked already
	}
}

// Keep counts what is kept, and keeps it within the bounds, until ctx ends. It is
// to run in one process. report, if not nil, is told of each eviction and of what
// stands in its way.
func (d *Dir) Keep(ctx context.Context, report func(freed int64, files int, err error)) {
	tick := time.NewTicker(recountEvery)
	defer tick.Stop()
	for {
		freed, files, err := d.makeRoom(ctx, 0)
		if report != nil && ctx.Err() == nil && (files > 0 || err != nil) {
			report(freed, files, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-d.crowd:
		}
	}
}

// Used gives the bytes of content kept, as last counted.
func (d *Dir) Used() int64 { return d.used.Load() }

// grew notes new content, and asks for room where that is too much.
func (d *Dir) grew(n int64) {
	if limit := d.limits.Load().MaxSize; d.used.Add(n) > limit && limit > 0 {
		d.askForRoom()
	}
}

// reserve sees to it that size more bytes (-1: unknown) may be written.
func (d *Dir) reserve(ctx context.Context, size int64) error {
	size = max(size, 0)
	if limit := d.limits.Load().MaxSize; limit > 0 && size > limit {
		return fmt.Errorf("%d bytes are more than the cache's max_size", size)
	}
	short, err := d.shortOfFree(size)
	if err != nil || short <= 0 {
		return err
	}
	if _, _, err := d.makeRoom(ctx, size); err != nil {
		return err
	}
	if short, err = d.shortOfFree(size); err == nil && short > 0 {
		err = fmt.Errorf("%d bytes more would leave less than min_free on the disk", size)
	}
	return err
}

// shortOfFree gives by how many bytes the filesystem would be too full with size
// bytes more.
func (d *Dir) shortOfFree(size int64) (int64, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	l := d.limits.Load()
	want := max(l.MinFree, int64(l.MinFreeShare*float64(st.Blocks)*float64(st.Bsize)))
	return want + size - int64(st.Bavail)*st.Bsize, nil
}

// makeRoom counts, and removes what was used longest ago until the bounds hold with
// extra bytes more. What is being read stays.
func (d *Dir) makeRoom(ctx context.Context, extra int64) (freed int64, files int, err error) {
	var all []Content
	var used int64
	err = d.Walk(ctx, func(c Content) error {
		used += c.Size
		all = append(all, c)
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	d.used.Store(used)
	short, err := d.shortOfFree(extra)
	if err != nil {
		return 0, 0, err
	}
	if limit := d.limits.Load().MaxSize; limit > 0 && used+extra > limit {
		short = max(short, used+extra-int64(lowMark*float64(limit)))
	}
	if short <= 0 {
		return 0, 0, nil
	}
	slices.SortFunc(all, func(a, b Content) int { return a.lastUse().Compare(b.lastUse()) })
	gone := map[digest.Digest]bool{}
	for _, c := range all {
		if freed >= short || ctx.Err() != nil {
			break
		}
		if d.isRead(c.Digest) || d.root.Remove(c.Path()) != nil {
			continue
		}
		gone[c.Digest] = true
		freed += c.Size
		files++
	}
	d.used.Add(-freed)
	d.recent.drop(gone)
	return freed, files, d.forgetGone(gone)
}

func (c Content) lastUse() time.Time {
	if c.Manifest {
		return c.Used.Add(manifestsOutlive)
	}
	return c.Used
}

func (d *Dir) isRead(dgst digest.Digest) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reading[dgst] > 0
}
