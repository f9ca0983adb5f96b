package cache

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestAHigherAgeIsInNoLowerStep(t *testing.T) {
	t.Parallel()
	last := 0
	for age := time.Duration(1); age > 0 && age < math.MaxInt64/2; age += age/40 + 1 {
		step := ageOf(age)
		if step < last || step >= ages {
			t.Fatalf("%v is in step %d of %d, less before it in %d", age, step, ages, last)
		}
		last = step
	}
	if ageOf(-time.Hour) != 0 || ageOf(math.MaxInt64) >= ages {
		t.Error("an age is in no step")
	}
	// What was written a tenth earlier is in another step.
	for _, age := range []time.Duration{2 * time.Second, time.Hour, 365 * 24 * time.Hour} {
		if ageOf(age) == ageOf(age*11/10) {
			t.Errorf("%v and a tenth more count as the same", age)
		}
	}
}

// swept is a sweep that has seen these records.
func swept(now time.Time, all []sweptRecord) *sweep {
	s := &sweep{now: now}
	for _, r := range all {
		s.keep(r)
	}
	return s
}

func TestTheRecordsThatGoAreThoseThatAreMissedLeast(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	now := time.Now()
	for range 200 {
		all := make([]sweptRecord, 1+random.IntN(2000))
		for i := range all {
			all[i] = sweptRecord{
				blocks: 1 + random.Int64N(3), untrusted: random.IntN(3) == 0, useful: random.IntN(2) == 0,
				written: now.Add(-time.Duration(random.Int64N(int64(1) << random.IntN(62)))),
			}
		}
		s := swept(now, all)
		limit, share := 1+random.Int64N(2*s.blocks), 1+random.Int64N(s.blocks)
		all, gone := split(all, s.surplus(limit, share))
		left := swept(now, all)
		if left.blocks > limit || left.untrusted > share {
			t.Fatalf("seed %d: %d of %d blocks are left, and %d of %d", seed, left.blocks, limit, left.untrusted, share)
		}
		// Less than one record more than necessary.
		const spare = 4
		enough := left.blocks < limit*8/10-spare && left.untrusted < share*8/10-spare
		if len(gone) > 0 && enough && s.blocks-left.blocks > spare {
			t.Fatalf("seed %d: only %d of %d blocks are left, and %d of %d", seed, left.blocks, limit, left.untrusted, share)
		}
		for _, r := range gone {
			for _, other := range all {
				if rankOf(other) < rankOf(r) || rankOf(other) == rankOf(r) && ageOf(now.Sub(other.written)) > ageOf(now.Sub(r.written)) {
					t.Fatalf("seed %d: %+v went, and %+v stayed", seed, r, other)
				}
			}
		}
	}
}

// split returns the records that stay and those that go.
func split(all []sweptRecord, remove func(sweptRecord) bool) (stay, gone []sweptRecord) {
	if remove == nil {
		return all, nil
	}
	for _, r := range all {
		if remove(r) {
			gone = append(gone, r)
		} else {
			stay = append(stay, r)
		}
	}
	return stay, gone
}
