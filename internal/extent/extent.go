// Package extent has sets of byte intervals: which parts of a file are present.
package extent

import "slices"

// Extent is the bytes from Start up to, and not including, End.
type Extent struct{ Start, End int64 }

// Len returns how many bytes the extent has.
func (e Extent) Len() int64 { return max(0, e.End-e.Start) }

// Set is a set of bytes. The zero value is empty. It is not safe for concurrent use.
type Set struct {
	all []Extent // sorted; they neither overlap nor touch
}

// Of returns the set of the bytes of these extents.
func Of(all ...Extent) Set {
	var s Set
	for _, e := range all {
		s.Add(e)
	}
	return s
}

// index returns the first extent that ends at off or after it.
func (s *Set) index(off int64) int {
	i, _ := slices.BinarySearchFunc(s.all, off, func(e Extent, off int64) int {
		if e.End < off {
			return -1
		}
		return 1
	})
	return i
}

// Add adds the bytes of e.
func (s *Set) Add(e Extent) {
	if e.Len() == 0 {
		return
	}
	first := s.index(e.Start)
	last := first
	for last < len(s.all) && s.all[last].Start <= e.End {
		e = Extent{min(e.Start, s.all[last].Start), max(e.End, s.all[last].End)}
		last++
	}
	s.all = slices.Replace(s.all, first, last, e)
}

// Remove removes the bytes of e.
func (s *Set) Remove(e Extent) {
	if e.Len() == 0 {
		return
	}
	first := s.index(e.Start)
	last := first
	var left []Extent
	for last < len(s.all) && s.all[last].Start < e.End {
		old := s.all[last]
		if old.Start < e.Start {
			left = append(left, Extent{old.Start, min(old.End, e.Start)})
		}
		if old.End > e.End {
			left = append(left, Extent{max(old.Start, e.End), old.End})
		}
		last++
	}
	s.all = slices.Replace(s.all, first, last, left...)
}

// RunFrom returns the end of the bytes that are present from off on without a gap: off itself if
// the byte at off is missing.
func (s *Set) RunFrom(off int64) int64 {
	if i := s.index(off + 1); i < len(s.all) && s.all[i].Start <= off {
		return s.all[i].End
	}
	return off
}

// Covers reports whether all bytes of e are present.
func (s *Set) Covers(e Extent) bool { return e.Len() == 0 || s.RunFrom(e.Start) >= e.End }

// Missing returns the first bytes within e that are missing, up to the next that are present. ok is
// false if none are missing.
func (s *Set) Missing(e Extent) (gap Extent, ok bool) {
	gap = Extent{s.RunFrom(e.Start), e.End}
	if gap.Len() == 0 {
		return Extent{}, false
	}
	if i := s.index(gap.Start + 1); i < len(s.all) {
		gap.End = min(gap.End, s.all[i].Start)
	}
	return gap, true
}

// Bytes returns how many bytes are present.
func (s *Set) Bytes() int64 {
	var n int64
	for _, e := range s.all {
		n += e.Len()
	}
	return n
}

// Count returns of how many extents the set is made.
func (s *Set) Count() int { return len(s.all) }

// All returns the extents in order.
func (s *Set) All() []Extent { return slices.Clone(s.all) }

// Clone returns a copy.
func (s *Set) Clone() Set { return Set{slices.Clone(s.all)} }
