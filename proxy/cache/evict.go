package cache

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
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
	// An eviction begins at the high mark of a bound and goes down to the low one, so that there
	// is always room for what is fetched next.
	highMark = 0.975
	lowMark  = 0.95

	// maxMargin is how much is left free beyond min_free, in bytes. It is less for a small cache.
	maxMargin = 1 << 30

	// manifestsOutlive is by how much a manifest counts as used later than it was: without it
	// the blobs of its image are of no use.
	manifestsOutlive = 7 * 24 * time.Hour

	// recountEvery is how often the cache is counted again, and its records swept, at most. If
	// that takes long, it happens less often: work is at most one part in recountShare of the time.
	recountEvery = time.Hour
	recountShare = 200

	// announceEvery is after how many files those who wait for room look again.
	announceEvery = 16
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

// sweepNow asks Keep to look at the records.
func (d *Dir) sweepNow() {
	select {
	case d.sweeping <- struct{}{}:
	default:
	}
}

// Keep holds what is stored within the bounds, and counts it if that is not known, until ctx ends.
// It must run in one process. It calls report, if that is not nil, with each eviction and with
// what prevents one, from one goroutine at a time.
func (d *Dir) Keep(ctx context.Context, report func(freed int64, files int, err error)) {
	var reporting sync.Mutex
	say := func(freed int64, files int, err error) {
		if report == nil || ctx.Err() != nil || files == 0 && err == nil {
			return
		}
		reporting.Lock()
		defer reporting.Unlock()
		report(freed, files, err)
	}
	d.keeping.Store(true)
	defer d.keeping.Store(false)
	var sweeping sync.WaitGroup
	defer sweeping.Wait()
	sweeping.Go(func() {
		periodically(ctx, d.sweeping, d.recordsUnknown, func(p *pace) {
			say(0, 0, d.sweepRecords(ctx, p))
		}, nil)
	})
	periodically(ctx, d.eviction, d.countUnknown, func(p *pace) {
		p.between = func() { say(d.evictListed(ctx)) }
		if err := d.survey(ctx, p); err != nil {
			say(0, 0, err)
		}
	}, func() { say(d.evict(ctx, &pace{ctx: ctx})) })
}

// periodically calls work when due says so at the beginning, and then from time to time. When asked
// it calls onRequest instead, or work if that is nil.
func periodically(ctx context.Context, asked <-chan struct{}, due func() bool, work func(*pace), onRequest func()) {
	next := recountEvery
	run := func() {
		p := &pace{ctx: ctx}
		work(p)
		next = max(recountEvery, recountShare*p.worked)
	}
	if due() {
		run()
	}
	for ctx.Err() == nil {
		timer := time.NewTimer(next)
		if onRequest != nil {
			onRequest() // what was asked for meanwhile, and after a survey what it has found
		}
		select {
		case <-ctx.Done():
		case <-timer.C:
			run()
		case <-asked:
			if onRequest == nil {
				run()
			}
		}
		timer.Stop()
	}
}

func (d *Dir) countUnknown() bool {
	d.space.mu.Lock()
	defer d.space.mu.Unlock()
	return !d.space.counted || !d.space.exact
}

// margin returns how much should be free beyond min_free. The caller holds space.mu.
func (s *space) margin() int64 { return min(maxMargin, s.used/20) }

// isLow reports whether there is so little room that some should be made, or would be if so many
// bytes were not there. The caller holds space.mu.
func (d *Dir) isLow(l Limits, free, without int64) bool {
	s := &d.space
	return free-s.unwritten+without < s.margin()/2 || l.MaxSize > 0 &&
		(s.used+s.reserved-without > int64(highMark*float64(l.MaxSize)) || s.onDisk()-without > int64(highMark*float64(l.diskLimit())))
}

// shortage is how many bytes must go.
type shortage struct {
	all       int64 // of any content
	trusted   int64 // of it, what trusted callers have asked for may go too
	untrusted int64 // of what untrusted callers have asked for
}

// shortage returns how many bytes must go for what has found no room, and for a margin. It takes
// over the wishes: one eviction serves all of them.
func (d *Dir) shortage() (need shortage, err error) {
	free, err := d.free()
	if err != nil {
		return need, err
	}
	share, err := d.untrustedLimit()
	if err != nil {
		return need, err
	}
	l, s := *d.limits.Load(), &d.space
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.counted {
		return need, nil
	}
	want, wantUntrusted := s.wanted, s.wantedUntrusted
	s.wanted, s.wantedUntrusted = 0, 0
	if own := s.usedUntrusted + s.reservedUntrusted + wantUntrusted; own > share {
		need.untrusted = own - int64(lowMark*float64(share))
	}
	if want+wantUntrusted == 0 && !d.isLow(l, free, 0) {
		return need, nil
	}
	// over returns how much too much there is with so much more.
	over := func(more, margin int64, mark float64) int64 {
		short := more + s.unwritten + margin - free
		if l.MaxSize > 0 {
			short = max(short, s.used+s.reserved+more-int64(mark*float64(l.MaxSize)), s.onDisk()+more-int64(mark*float64(l.diskLimit())))
		}
		return max(short, 0)
	}
	need.all = over(want+wantUntrusted, s.margin(), lowMark)
	// An untrusted caller does not push out what a trusted one has asked for. The margin may be
	// smaller by what untrusted callers are fetching.
	theirs := s.usedUntrusted + s.reservedUntrusted
	need.trusted = over(want, 0, 1)
	if want > 0 || d.isLow(l, free, theirs) {
		need.trusted = max(need.trusted, over(want, s.margin(), lowMark)-theirs)
	}
	return need, nil
}

// evict removes content until the bounds hold with a margin: what only untrusted callers have asked
// for first, then what was used longest ago. What is being read stays. If the list of what was used
// longest ago does not suffice, it surveys.
func (d *Dir) evict(ctx context.Context, p *pace) (freed int64, files int, err error) {
	need, err := d.shortage()
	if err != nil {
		return 0, 0, err
	}
	e := eviction{dir: d, need: need}
	e.fromList(ctx)
	// What is left in a list may not go. If the list is used up, the next one may bring more.
	for before := -1; !e.done() && len(d.victims.list) == 0 && e.files > before; {
		before = e.files
		if err = d.survey(ctx, p); err != nil {
			break
		}
		e.fromList(ctx)
	}
	return e.freed, e.files, cmp.Or(err, d.forgetEvicted(ctx, e.gone))
}

// evictListed is evict without a survey.
func (d *Dir) evictListed(ctx context.Context) (freed int64, files int, err error) {
	need, err := d.shortage()
	if err != nil {
		return 0, 0, err
	}
	e := eviction{dir: d, need: need}
	e.fromList(ctx)
	return e.freed, e.files, d.forgetEvicted(ctx, e.gone)
}

// eviction is one pass through the list of victims.
type eviction struct {
	dir       *Dir
	need      shortage
	freed     int64 // of all
	untrusted int64 // of untrusted callers' content
	files     int
	gone      []digest.Digest
}

func (e *eviction) done() bool {
	return e.freed >= e.need.all && e.untrusted >= e.need.untrusted
}

// wants reports whether v should go.
func (e *eviction) wants(v victim) bool {
	if v.untrusted {
		return e.freed < e.need.all || e.untrusted < e.need.untrusted
	}
	return e.freed < min(e.need.all, e.need.trusted+e.untrusted)
}

// fromList removes what has to go of the list. What stays in it stays in order.
func (e *eviction) fromList(ctx context.Context) {
	if e.done() {
		return
	}
	v := &e.dir.victims
	e.dir.enterArrivals()
	for announced := 0; len(v.list) > 0 && e.wants(v.list[0]) && ctx.Err() == nil; v.list = v.list[1:] {
		e.remove(v.list[0])
		if e.files-announced >= announceEvery {
			e.dir.space.announce()
			announced = e.files
		}
	}
	if len(v.list) == 0 {
		v.list = nil
	}
	e.dir.space.announce()
}

// remove removes v unless it was used since it was seen, or is being read.
func (e *eviction) remove(v victim) {
	d := e.dir
	dgst := digestOfPath(v.path)
	if d.isRead(dgst) {
		return
	}
	now, err := d.stat(v.path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // another program has removed it
	case err != nil || now.used.UnixNano() != v.written || now.untrusted != v.untrusted:
		return
	default:
		if list, ok := strings.CutSuffix(v.path, partialData); ok {
			_ = d.root.Remove(list + partialList) // without it the data counts as nothing
		}
		if err := d.root.Remove(v.path); ignoreMissing(err) != nil {
			return
		}
		e.files++
		if d.victims.gone != nil {
			d.victims.gone[v.path] = true
		}
	}
	d.shrank(v.path, v.size, v.untrusted)
	d.recent.drop(dgst)
	e.gone = append(e.gone, dgst)
	e.freed += v.size
	if v.untrusted {
		e.untrusted += v.size
	}
}

func (d *Dir) isRead(dgst digest.Digest) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reading[dgst] > 0
}
