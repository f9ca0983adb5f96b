package cache

import (
	"cmp"
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

	// MaxAge is how long lists and grants are of use after they were last written; 0: for ever.
	MaxAge time.Duration
}

const (
	// lowMark is how far an eviction goes below a bound, so that the next fill does not need
	// one again.
	lowMark = 0.95

	// manifestsOutlive is by how much a manifest counts as used later than it was: without it
	// the blobs of its image are of no use.
	manifestsOutlive = 7 * 24 * time.Hour

	recountEvery = time.Hour
)

// SetLimits changes the bounds; what is stored already is under them too.
func (d *Dir) SetLimits(l Limits) {
	d.limits.Store(&l)
	d.evictNow()
}

// evictNow asks Keep to look at the bounds.
func (d *Dir) evictNow() {
	select {
	case d.eviction <- struct{}{}:
	default: // it is asked already
	}
}

// Keep counts what is stored, and holds it within the bounds, until ctx ends. It must run in
// one process. It calls report, if that is not nil, with each eviction and with what prevents
// one.
func (d *Dir) Keep(ctx context.Context, report func(freed int64, files int, err error)) {
	tick := time.NewTicker(recountEvery)
	defer tick.Stop()
	for {
		freed, files, err := d.makeRoom(ctx, 0, false)
		err = cmp.Or(err, d.sweepRecords(ctx))
		if report != nil && ctx.Err() == nil && (files > 0 || err != nil) {
			report(freed, files, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-d.eviction:
		}
	}
}

// Used returns the bytes of content that are stored, as last counted.
func (d *Dir) Used() int64 { return d.used.Load() }

// grew records new content, and has room made if that is too much.
func (d *Dir) grew(n int64, untrusted bool) {
	if untrusted {
		d.usedUntrusted.Add(n)
	}
	if limit := d.limits.Load().MaxSize; d.used.Add(n) > limit && limit > 0 {
		d.evictNow()
	}
}

// reserve makes sure that size more bytes (-1: unknown) may be written, for an untrusted caller
// or not.
func (d *Dir) reserve(ctx context.Context, size int64, untrusted bool) error {
	size = max(size, 0)
	if limit := d.limits.Load().MaxSize; limit > 0 && size > limit {
		return fmt.Errorf("%d bytes are more than the cache's max_size", size)
	}
	if untrusted {
		if err := d.reserveShare(ctx, size); err != nil {
			return err
		}
	}
	short, err := d.shortOfFree(size)
	if err != nil || short <= 0 {
		return err
	}
	if _, _, err := d.makeRoom(ctx, size, untrusted); err != nil {
		return err
	}
	if short, err = d.shortOfFree(size); err == nil && short > 0 {
		err = fmt.Errorf("%d bytes more would leave less than min_free on the disk", size)
	}
	return err
}

// shortOfFree returns by how many bytes the filesystem would be too full with size bytes more.
func (d *Dir) shortOfFree(size int64) (int64, error) {
	st, err := d.filesystem()
	if err != nil {
		return 0, err
	}
	l := d.limits.Load()
	want := max(l.MinFree, int64(l.MinFreeShare*float64(st.Blocks)*float64(st.Bsize)))
	return want + size - int64(st.Bavail)*st.Bsize, nil
}

func (d *Dir) filesystem() (st unix.Statfs_t, err error) {
	f, err := d.root.Open(".")
	if err != nil {
		return st, err
	}
	defer f.Close()
	err = unix.Fstatfs(int(f.Fd()), &st)
	return st, err
}

// makeRoom counts, and removes content until the bounds hold with extra bytes more: what only
// untrusted callers have asked for first, then what was used longest ago. What is being read
// stays. With untrusted, the extra bytes are for an untrusted caller, and nothing that a trusted
// one has asked for goes.
func (d *Dir) makeRoom(ctx context.Context, extra int64, untrusted bool) (freed int64, files int, err error) {
	all, err := d.count(ctx)
	if err != nil {
		return 0, 0, err
	}
	short, err := d.shortOf(extra)
	if err != nil {
		return 0, 0, err
	}
	shortOfShare, err := d.shortOfShare(extra, untrusted)
	if err != nil || short <= 0 && shortOfShare <= 0 {
		return 0, 0, err
	}
	slices.SortFunc(all, func(a, b Content) int {
		if a.Untrusted != b.Untrusted {
			return map[bool]int{true: -1, false: 1}[a.Untrusted]
		}
		return a.lastUse().Compare(b.lastUse())
	})
	gone := map[digest.Digest]bool{}
	for _, c := range all {
		if ctx.Err() != nil || freed >= short && (freed >= shortOfShare || !c.Untrusted) || untrusted && !c.Untrusted {
			break
		}
		if d.isRead(c.Digest) || d.root.Remove(c.Path()) != nil {
			continue
		}
		if c.partial == "" {
			gone[c.Digest] = true
		} else {
			_ = d.root.Remove(c.partial + listSuffix) // without data it is of no use
		}
		freed += c.Size
		files++
		if c.Untrusted {
			d.usedUntrusted.Add(-c.Size)
		}
	}
	d.used.Add(-freed)
	d.recent.drop(gone)
	return freed, files, d.forgetGone(gone)
}

// count walks through all content, partial blobs included, and sets the counters.
func (d *Dir) count(ctx context.Context) (all []Content, err error) {
	var used, untrusted int64
	add := func(c Content) error {
		used += c.Size
		if c.Untrusted {
			untrusted += c.Size
		}
		all = append(all, c)
		return nil
	}
	if err = d.Walk(ctx, add); err == nil {
		err = d.walkPartials(add)
	}
	if err == nil {
		d.used.Store(used)
		d.usedUntrusted.Store(untrusted)
	}
	return all, err
}

// shortOf returns how many bytes must go so that extra bytes more are within the bounds.
func (d *Dir) shortOf(extra int64) (int64, error) {
	short, err := d.shortOfFree(extra)
	if err != nil {
		return 0, err
	}
	used := d.used.Load()
	if limit := d.limits.Load().MaxSize; limit > 0 && used+extra > limit {
		short = max(short, used+extra-int64(lowMark*float64(limit)))
	}
	return short, nil
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
