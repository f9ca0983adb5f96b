package cache

import (
	"context"
	"encoding/json"
	"errors"
	"path"
	"runtime/debug"
	"slices"
	"time"
)

const (
	// recordShare is which part of max_size records may take: one in so many.
	recordShare = 10

	minRecordBlocks     = 512
	defaultRecordBlocks = 1 << 18 // without a max_size

	// spareTime is for how long a record stays that is about nothing stored: a pull that is
	// under way writes records before its content is whole.
	spareTime = time.Hour
)

var errRecordsFull = errors.New("there is no room for more records")

// recordBlocks returns how many blocks a file of so many bytes takes.
func recordBlocks(size int64) int64 { return max((size+blockSize-1)/blockSize, 1) }

// recordCost returns how many blocks a new record of so many bytes takes at most, with its part of
// the folders. A sweep counts the folders one by one.
func recordCost(size int64) int64 { return 1 + recordBlocks(size) }

// recordLimit returns how many blocks all records may take, and those of untrusted callers.
func (d *Dir) recordLimit() (all, untrusted int64) {
	all = defaultRecordBlocks
	if limit := d.limits.Load().MaxSize; limit > 0 {
		all = max(limit/recordShare/blockSize, minRecordBlocks)
	}
	return all, all / untrustedShare
}

// admitRecord counts a record that grows by so many blocks, or returns an error if there is no
// room for it.
func (d *Dir) admitRecord(blocks int64, untrusted bool) error {
	limit, share := d.recordLimit()
	s := &d.space
	s.mu.Lock()
	defer s.mu.Unlock()
	if blocks > 0 && (s.records+blocks > limit || untrusted && s.recordsUntrusted+blocks > share) {
		d.sweepNow()
		return errRecordsFull
	}
	s.records += blocks
	if untrusted {
		s.recordsUntrusted += blocks
	}
	return nil
}

// recordsUnknown reports whether the records must be counted.
func (d *Dir) recordsUnknown() bool { return d.countUnknown() || !d.HoldersKnown() }

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
// without records. It takes the same memory whatever the number of records, and goes over them
// twice at most.
func (d *Dir) sweepRecords(ctx context.Context, p *pace) error {
	d.sweeps.Add(1)
	s := &sweep{dir: d, pace: p, now: time.Now()}
	rebuild := d.startHolders()
	defer rebuild.abandon()
	s.holding = rebuild.swept
	if err := s.run(ctx, s.expire); err != nil {
		return err
	}
	rebuild.finish(s.holdings)
	if remove := s.surplus(d.recordLimit()); remove != nil {
		s = &sweep{dir: d, pace: p, now: s.now}
		if err := s.run(ctx, remove); err != nil {
			return err
		}
	}
	if p != nil && s.holdings > largeWalk {
		debug.FreeOSMemory()
	}
	// What was written meanwhile is counted at the next sweep.
	d.space.mu.Lock()
	defer d.space.mu.Unlock()
	d.space.records, d.space.recordsUntrusted = s.blocks, s.untrusted
	return nil
}

// sweep is one pass over all records.
type sweep struct {
	dir     *Dir
	pace    *pace
	now     time.Time
	holding func(Record) // called for each record of a holding that stays, if not nil

	blocks, untrusted int64
	holdings          int64
	merits            merits // of the records that stay
}

// run calls remove for each record, and removes those for which it returns true.
func (s *sweep) run(ctx context.Context, remove func(sweptRecord) bool) error {
	return s.dir.eachRepository(ctx, func(r Repository, f folder, kinds []string) error {
		left, holds := 0, false
		s.blocks += int64(len(kinds)) + 1 // folders
		// What the repository holds is known before what depends on it.
		slices.SortFunc(kinds, func(a, b string) int { return kindRank(a) - kindRank(b) })
		err := f.eachRecord(ctx, r, kinds, func(rec Record, in folder, name string) error {
			if err := s.pace.step(); err != nil {
				return err
			}
			i, err := in.stat(name)
			if err != nil || !i.regular {
				return ignoreMissing(err)
			}
			swept := sweptRecord{Record: rec, blocks: recordBlocks(i.size), written: i.used, untrusted: i.untrusted}
			if swept.written.After(s.now) {
				// A clock was wrong. From now on its age counts.
				_ = s.dir.root.Chtimes(rec.Path, s.now, s.now)
				swept.written = s.now
			}
			swept.useful = s.dir.isUseful(rec, in, name, holds)
			holds = holds || swept.useful
			if remove(swept) && ignoreMissing(in.remove(name)) == nil {
				return nil
			}
			left++
			s.keep(swept)
			return nil
		})
		if err == nil && left == 0 {
			s.dir.removeEmpty(r, f, kinds)
		}
		return err
	})
}

// kindRank orders the kinds of record: first what a repository holds.
func kindRank(kind string) int {
	if k := RecordKind(kind); k == KindBlob || k == KindManifest {
		return 0
	}
	return 1
}

// keep counts a record that stays.
func (s *sweep) keep(r sweptRecord) {
	s.blocks += r.blocks
	if r.untrusted {
		s.untrusted += r.blocks
	}
	s.merits.add(r, s.now)
	if r.Kind == KindBlob || r.Kind == KindManifest {
		s.holdings++
		if s.holding != nil {
			s.holding(r.Record)
		}
	}
}

// isUseful reports whether a record is about something that is stored. holds says that its
// repository holds something that is.
func (d *Dir) isUseful(r Record, in folder, name string, holds bool) bool {
	switch r.Kind {
	case KindBlob, KindManifest:
		_, err := d.Stored(r.Digest(), r.Kind == KindManifest)
		return err == nil
	case KindTag:
		data, err := in.read(name, maxRecord)
		var all []Meaning
		if err != nil || json.Unmarshal(data, &all) != nil {
			return false
		}
		return slices.ContainsFunc(all, func(m Meaning) bool {
			_, err := d.Stored(m.Digest, true)
			return err == nil
		})
	case KindList, KindGrant:
		return holds
	}
	return false
}

// expire reports whether a record is of no use any more.
func (s *sweep) expire(r sweptRecord) bool {
	age := s.now.Sub(r.written)
	maxAge := s.dir.limits.Load().MaxAge
	if r.Kind == KindList && !r.untrusted {
		return maxAge > 0 && age > maxAge
	}
	if (r.Kind == KindList || r.Kind == KindGrant) && maxAge > 0 && age > maxAge {
		return true
	}
	return !r.useful && age > spareTime
}

// removeEmpty removes the folders of a repository that has no records, and those around it that
// are empty then. A record that is written at this moment stays.
func (d *Dir) removeEmpty(r Repository, f folder, kinds []string) {
	for _, kind := range kinds {
		if inner, err := f.sub(kind); err == nil {
			names, _ := inner.names()
			inner.close()
			for _, name := range names {
				_ = d.root.Remove(path.Join(r.folder(), kind, name))
			}
		}
		_ = d.root.Remove(path.Join(r.folder(), kind))
	}
	for _, outer := range r.folders() {
		if d.root.Remove(outer) != nil {
			return // another repository is in it
		}
	}
}
