package cache

import (
	"context"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// maxVictims is how much of the content that was used longest ago is known by name. The whole
// order would take 55 MiB at 300,000 files; with this part of it a survey serves for so many
// evictions, and the list takes 1 MiB at any size.
const maxVictims = 8192

// largeWalk is after how many files the memory that a walk has used is given back at once.
const largeWalk = 10_000

// maxArrivals is how much new content of untrusted callers is remembered between two evictions.
// What is beyond that waits for the next survey.
const maxArrivals = 1024

// victim is content that may go.
type victim struct {
	path      string // in the cache's folder
	size      int64
	written   int64 // as seen: if it differs, it was used since
	lastUse   int64 // what the order is by
	untrusted bool
}

// victims is the content that was used longest ago, in the order in which it goes: what only
// untrusted callers have asked for comes first.
type victims struct {
	list []victim
	more bool            // the survey has seen more than the list takes
	gone map[string]bool // what was removed while a survey runs
}

func compareVictims(a, b victim) int {
	switch {
	case a.untrusted != b.untrusted && a.untrusted:
		return -1
	case a.untrusted != b.untrusted:
		return 1
	case a.lastUse < b.lastUse:
		return -1
	case a.lastUse > b.lastUse:
		return 1
	}
	return strings.Compare(a.path, b.path)
}

// add enters content that is at a place. The list has twice maxVictims at most.
func (v *victims) add(x victim, at place) {
	if v.more && compareVictims(x, v.list[maxVictims-1]) > 0 {
		return
	}
	x.path = at.path()
	if v.list = append(v.list, x); len(v.list) == 2*maxVictims {
		v.cut()
	}
}

// cut sorts the list and leaves the first maxVictims.
func (v *victims) cut() {
	slices.SortFunc(v.list, compareVictims)
	if len(v.list) > maxVictims {
		clear(v.list[maxVictims:])
		v.list, v.more = v.list[:maxVictims], true
	}
}

// compact returns a copy of list whose paths are one string: apart they would hold pages of memory
// that were otherwise free.
func compact(list []victim) []victim {
	var paths strings.Builder
	for _, v := range list {
		paths.WriteString(v.path)
	}
	all := slices.Clone(list)
	for i, left := 0, paths.String(); i < len(all); i++ {
		n := len(all[i].path)
		all[i].path, left = left[:n], left[n:]
	}
	return all
}

// survey counts all content and finds what was used longest ago.
func (d *Dir) survey(ctx context.Context, p *pace) error {
	d.surveys.Add(1)
	var found victims
	d.victims.gone = map[string]bool{}
	defer func() { d.victims.gone = nil }()
	now := time.Now()
	d.space.begin()
	files := 0
	see := func(at place, i fileInfo) error {
		files++
		d.space.count(at.folder, i)
		v := victim{size: i.size, written: i.used.UnixNano(), lastUse: i.used.UnixNano(), untrusted: i.untrusted}
		if i.used.After(now) {
			// A clock was wrong. From now on its age counts.
			_ = d.root.Chtimes(at.path(), now, now)
			if seen, err := d.stat(at.path()); err == nil {
				v.written = seen.used.UnixNano()
			}
			v.lastUse = now.UnixNano()
		}
		if at.isManifest() {
			v.lastUse += int64(manifestsOutlive)
		}
		found.add(v, at)
		return nil
	}
	err := d.eachContent(ctx, p, see)
	if err == nil {
		err = d.eachPartial(ctx, p, see)
	}
	if err != nil {
		return err
	}
	found.cut()
	// The survey may have seen what was removed a moment later.
	found.list = slices.DeleteFunc(found.list, func(v victim) bool { return d.victims.gone[v.path] })
	d.victims = victims{list: compact(found.list), gone: d.victims.gone}
	d.space.settle()
	d.saveSurvey()
	if p != nil && files > largeWalk {
		debug.FreeOSMemory()
	}
	return nil
}

// tally is what a survey has counted so far. What comes and goes meanwhile is counted too, if it is
// in a folder that the survey has left: what is in the others, the survey sees itself. Of the folder
// that it is in, it may count too much, until the next survey.
type tally struct {
	folder                    string // where the survey is: "blobs/sha256/2c"
	used, untrusted, rounding int64
}

// begin begins a survey.
func (s *space) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally = &tally{}
}

// count counts one file of a survey, which is in that folder.
func (s *space) count(folder string, i fileInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally.folder = folder
	s.tally.add(i.size, i.untrusted, 1)
}

// add counts content that is there, with sign 1, or is gone, with sign -1.
func (t *tally) add(size int64, untrusted bool, sign int64) {
	t.used += sign * size
	t.rounding += sign * rounded(size)
	if untrusted {
		t.untrusted += sign * size
	}
}

// settle sets the account to what a survey has counted.
func (s *space) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used, s.usedUntrusted, s.rounding = s.tally.used, s.tally.untrusted, s.tally.rounding
	s.counted, s.exact, s.tally = true, true, nil
}

// add changes the account by content that has come, with sign 1, or is gone, with sign -1. The
// caller holds mu.
func (s *space) add(name string, size int64, untrusted bool, sign int64) {
	s.used = max(s.used+sign*size, 0)
	s.rounding = max(s.rounding+sign*rounded(size), 0)
	if untrusted {
		s.usedUntrusted = max(s.usedUntrusted+sign*size, 0)
		if sign > 0 && len(s.arrivals) < maxArrivals {
			s.arrivals = append(s.arrivals, name)
		}
	}
	if t := s.tally; t != nil && (path.Dir(name) < t.folder || sign > 0 && path.Dir(name) == t.folder) {
		t.add(size, untrusted, sign)
	}
}

// enterArrivals enters in the list of victims what untrusted callers have had stored since the
// survey: it goes before everything else.
func (d *Dir) enterArrivals() {
	s := &d.space
	s.mu.Lock()
	arrived := s.arrivals
	s.arrivals = nil
	s.mu.Unlock()
	if len(arrived) == 0 {
		return
	}
	known := make(map[string]bool, len(arrived))
	for _, v := range d.victims.list {
		if v.untrusted {
			known[v.path] = true
		}
	}
	for _, name := range arrived {
		if i, err := d.stat(name); err == nil && i.untrusted && !known[name] {
			known[name] = true
			if strings.HasPrefix(name, "partial/") {
				i.size = i.allocated
			}
			d.victims.list = append(d.victims.list, victim{name, i.size, i.used.UnixNano(), i.used.UnixNano(), true})
		}
	}
	slices.SortFunc(d.victims.list, compareVictims)
}

// stat looks at a file by its path in the cache's folder.
func (d *Dir) stat(name string) (fileInfo, error) {
	top, err := d.top()
	if err != nil {
		return fileInfo{}, err
	}
	return top.stat(name)
}

// digestOfPath returns the digest of content, or of a partial blob, by its path; "" if it is none.
func digestOfPath(name string) digest.Digest {
	if partial, ok := strings.CutPrefix(name, "partial/"); ok {
		return digestOfPartial(partial)
	}
	parts := strings.Split(name, "/")
	if len(parts) != 4 {
		return ""
	}
	return digestOf(parts[1] + "/" + parts[3])
}
