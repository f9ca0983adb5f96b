package cache

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// recordBlock is what a small file takes on disk, in bytes. Records are counted in blocks,
	// with one more for the name.
	recordBlock = 4096

	// recordShare is which part of max_size records may take: one in so many.
	recordShare = 10

	minRecordBlocks     = 4096
	defaultRecordBlocks = 1 << 18 // without a max_size

	// spareTime is for how long a record stays that is about nothing stored: a pull that is
	// under way writes records before its content is whole.
	spareTime = time.Hour
)

var errRecordsFull = errors.New("there is no room for more records")

// recordCost returns how many blocks a record of so many bytes takes.
func recordCost(size int64) int64 { return 1 + (size+recordBlock-1)/recordBlock }

// recordLimit returns how many blocks all records may take, and those of untrusted callers.
func (d *Dir) recordLimit() (all, untrusted int64) {
	all = defaultRecordBlocks
	if limit := d.limits.Load().MaxSize; limit > 0 {
		all = max(limit/recordShare/recordBlock, minRecordBlocks)
	}
	return all, all / untrustedShare
}

// admitRecord counts a record that grows by so many blocks, or returns an error if there is no
// room for it.
func (d *Dir) admitRecord(blocks int64, untrusted bool) error {
	limit, share := d.recordLimit()
	full := d.records.Add(blocks) > limit && blocks > 0
	if untrusted && d.recordsUntrusted.Add(blocks) > share && blocks > 0 {
		full = true
	}
	if !full {
		return nil
	}
	d.records.Add(-blocks)
	if untrusted {
		d.recordsUntrusted.Add(-blocks)
	}
	d.evictNow()
	return errRecordsFull
}

// sweptRecord is a record as a sweep sees it.
type sweptRecord struct {
	Record
	blocks    int64
	written   time.Time
	untrusted bool
	useful    bool // it is about something that is stored
}

// sweepRecords removes the records that are of no use any more, and if there are still too
// many, those of untrusted callers and the oldest. It removes the folders of repositories
// without records.
func (d *Dir) sweepRecords(ctx context.Context) error {
	all, err := d.surveyRecords(ctx)
	if err != nil {
		return err
	}
	var blocks, untrusted int64
	for _, r := range all {
		blocks += r.blocks
		if r.untrusted {
			untrusted += r.blocks
		}
	}
	limit, share := d.recordLimit()
	most, mostUntrusted := lowered(blocks, limit), lowered(untrusted, share)
	slices.SortFunc(all, compareUse)
	now := time.Now()
	left := map[Repository]int{}
	for _, r := range all {
		over := blocks > most || r.untrusted && untrusted > mostUntrusted
		if !over && !d.expired(r, now) || d.RemoveRecord(r.Record) != nil {
			left[r.Repository]++
			continue
		}
		left[r.Repository] += 0
		blocks -= r.blocks
		if r.untrusted {
			untrusted -= r.blocks
		}
	}
	d.records.Store(blocks)
	d.recordsUntrusted.Store(untrusted)
	var errs []error
	for r, n := range left {
		if n == 0 {
			errs = append(errs, d.RemoveRepository(r))
		}
	}
	return errors.Join(errs...)
}

// lowered returns how much may stay of n: all of it while there is room within limit, and
// otherwise so much that there is room for a while.
func lowered(n, limit int64) int64 {
	if n <= limit*9/10 {
		return n
	}
	return limit * 8 / 10
}

// compareUse orders records by what is missed least: those of untrusted callers, those about
// nothing stored, the oldest.
func compareUse(a, b sweptRecord) int {
	rank := func(r sweptRecord) int {
		switch {
		case r.untrusted && !r.useful:
			return 0
		case r.untrusted:
			return 1
		case !r.useful:
			return 2
		}
		return 3
	}
	if x, y := rank(a), rank(b); x != y {
		return x - y
	}
	return a.written.Compare(b.written)
}

// expired reports whether a record is of no use any more.
func (d *Dir) expired(r sweptRecord, now time.Time) bool {
	age := now.Sub(r.written)
	maxAge := d.limits.Load().MaxAge
	if r.Kind == KindList && !r.untrusted {
		return maxAge > 0 && age > maxAge
	}
	if (r.Kind == KindList || r.Kind == KindGrant) && maxAge > 0 && age > maxAge {
		return true
	}
	return !r.useful && age > spareTime
}

// surveyRecords returns all records, with whether they are about something that is stored.
func (d *Dir) surveyRecords(ctx context.Context) ([]sweptRecord, error) {
	stored := map[digest.Digest]bool{}
	err := d.Walk(ctx, func(c Content) error {
		stored[c.Digest] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	var all []sweptRecord
	holds := map[Repository]bool{}
	err = d.walkRecords(ctx, func(r Record, e fs.DirEntry) error {
		info, err := e.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		s := sweptRecord{
			Record: r, blocks: recordCost(info.Size()), written: info.ModTime(), untrusted: isUntrusted(info),
		}
		switch r.Kind {
		case KindBlob, KindManifest:
			s.useful = stored[r.Digest()]
			holds[r.Repository] = holds[r.Repository] || s.useful
		case KindTag:
			s.useful = slices.ContainsFunc(d.Tag(r.Repository, r.Name), func(m Meaning) bool { return stored[m.Digest] })
		}
		all = append(all, s)
		return nil
	})
	for i := range all {
		if k := all[i].Kind; k == KindList || k == KindGrant {
			all[i].useful = holds[all[i].Repository]
		}
	}
	return all, err
}
