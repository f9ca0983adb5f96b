package extent

import (
	"math/rand/v2"
	"testing"
)

// model is a set of bytes below 256, one by one.
type model [256]bool

func (m *model) set(e Extent, to bool) {
	for i := max(0, e.Start); i < min(256, e.End); i++ {
		m[i] = to
	}
}

func (m *model) run(off int64) int64 {
	for off < 256 && m[off] {
		off++
	}
	return off
}

// check compares a set with the model by every question that can be asked.
func (m *model) check(t *testing.T, s *Set, dice *rand.Rand) {
	t.Helper()
	var bytes int64
	for _, there := range m {
		if there {
			bytes++
		}
	}
	if s.Bytes() != bytes {
		t.Fatalf("%v has %d bytes, want %d", s.All(), s.Bytes(), bytes)
	}
	last := int64(-1)
	for _, e := range s.All() {
		if e.Start <= last || e.Len() == 0 {
			t.Fatalf("%v is not sorted, or has extents that touch", s.All())
		}
		last = e.End
	}
	for range 8 {
		e := Extent{dice.Int64N(256), dice.Int64N(257)}
		if got, want := s.RunFrom(e.Start), m.run(e.Start); got != want {
			t.Fatalf("%v: the run from %d ends at %d, want %d", s.All(), e.Start, got, want)
		}
		want := Extent{m.run(e.Start), 0}
		for want.End = want.Start; want.End < e.End && !m[want.End]; {
			want.End++
		}
		gap, ok := s.Missing(e)
		if ok != (want.Len() > 0) || ok && gap != want {
			t.Fatalf("%v: of %v is missing %v, %v, want %v", s.All(), e, gap, ok, want)
		}
		if s.Covers(e) != (m.run(e.Start) >= e.End || e.Len() == 0) {
			t.Fatalf("%v: it covers %v is %v", s.All(), e, s.Covers(e))
		}
	}
}

func TestAnyOperationsLeaveTheSameBytesAsInANaiveModel(t *testing.T) {
	t.Parallel()
	dice := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var s Set
		var m model
		for range 60 {
			start := dice.Int64N(256)
			e := Extent{start, start + dice.Int64N(257-start)}
			if dice.IntN(3) == 0 {
				s.Remove(e)
				m.set(e, false)
			} else {
				s.Add(e)
				m.set(e, true)
			}
			m.check(t, &s, dice)
		}
		c := s.Clone()
		c.Add(Extent{0, 256})
		m.check(t, &s, dice)
	}
}

func FuzzSet(f *testing.F) {
	f.Add([]byte{0, 1, 9, 1, 3, 5})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var s Set
		var m model
		dice := rand.New(rand.NewPCG(3, 4))
		for ; len(ops) >= 3; ops = ops[3:] {
			e := Extent{int64(ops[1]), int64(ops[2])}
			if ops[0]%2 == 1 {
				s.Remove(e)
				m.set(e, false)
			} else {
				s.Add(e)
				m.set(e, true)
			}
			m.check(t, &s, dice)
		}
	})
}
