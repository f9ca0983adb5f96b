package cache

import (
	"math/bits"
	"time"
)

// merits is how many blocks records take, by how much those are missed if they go: first by their
// rank, then by their age. A pass over all records fills it, and the next one removes what must go
// as it comes along. So it takes the same memory and time whatever is too much.
type merits [ranks][ages]int64

// The ranks of records, those that are missed least first.
const (
	rankUntrustedUnused = iota // about nothing that is stored
	rankUntrusted
	rankUnused
	rankUsed
	ranks
)

// Ages are counted in steps that are a sixteenth of the age or less, and a tenth of a second at
// least.
const (
	ageStep   = 100 * time.Millisecond
	finerBits = 4
	ages      = (64 - finerBits) << finerBits
)

// ageOf returns the step that an age is in: more for a higher age.
func ageOf(age time.Duration) int {
	n := uint64(max(age, 0) / ageStep)
	shift := max(bits.Len64(n)-finerBits-1, 0)
	return shift<<finerBits + int(n>>shift)
}

func rankOf(r sweptRecord) int {
	switch {
	case r.untrusted && !r.useful:
		return rankUntrustedUnused
	case r.untrusted:
		return rankUntrusted
	case !r.useful:
		return rankUnused
	}
	return rankUsed
}

// add counts a record.
func (m *merits) add(r sweptRecord, now time.Time) {
	m[rankOf(r)][ageOf(now.Sub(r.written))] += r.blocks
}

// surplus returns a function that reports whether a record must go, for a pass over the records
// that this one has left: no more blocks may stay than limit in all, and than share of untrusted
// callers. It is nil if there are no more.
func (s *sweep) surplus(limit, share int64) func(sweptRecord) bool {
	all := s.blocks - lowered(s.blocks, limit)
	theirs := s.untrusted - lowered(s.untrusted, share)
	if all <= 0 && theirs <= 0 {
		return nil
	}
	for rank := range s.merits {
		for age := ages - 1; age >= 0; age-- {
			there := &s.merits[rank][age]
			most := all
			if rank <= rankUntrusted {
				most = max(most, theirs)
			}
			*there = min(*there, max(most, 0))
			all -= *there
			theirs -= *there
		}
	}
	// What is left in merits are the blocks that must go.
	return func(r sweptRecord) bool {
		left := &s.merits[rankOf(r)][ageOf(s.now.Sub(r.written))]
		if *left <= 0 {
			return false
		}
		*left -= r.blocks
		return true
	}
}

// lowered returns how much may stay of n: all of it while there is room within limit, and
// otherwise so much that there is room for a while.
func lowered(n, limit int64) int64 {
	if n <= limit*9/10 {
		return n
	}
	return limit * 8 / 10
}
