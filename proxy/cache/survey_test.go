package cache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestTheListOfVictimsIsTheColdestOfAllAndBounded(t *testing.T) {
	t.Parallel()
	dice := rand.New(rand.NewPCG(3, 4))
	var all []victim
	var found victims
	for i := range 5 * maxVictims {
		v := victim{lastUse: dice.Int64N(1 << 40), untrusted: dice.IntN(50) == 0}
		at := place{"blobs/sha256/00", fmt.Sprint(i)}
		found.add(v, at)
		v.path = at.path()
		all = append(all, v)
		if len(found.list) >= 2*maxVictims {
			t.Fatalf("the list has %d entries", len(found.list))
		}
	}
	found.cut()
	slices.SortFunc(all, compareVictims)
	if !found.more || !slices.Equal(found.list, all[:maxVictims]) {
		t.Errorf("the list of %d is not the coldest of all", len(found.list))
	}
}

// What comes and goes while a survey runs is in the account once, and what another program removes is
// out of it when the eviction finds that.
func TestASurveyCountsWhatComesAndGoesMeanwhile(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	for i := range 200 {
		put(t, d, fmt.Sprint("before ", i), time.Hour)
	}
	i := 0
	p := &pace{ctx: t.Context(), between: func() {
		put(t, d, fmt.Sprint("meanwhile ", i), 0)
		before := digest.FromString(fmt.Sprint("before ", i))
		c, err := d.Stored(before, false)
		if err != nil {
			t.Fatal(err)
		}
		e := eviction{dir: d}
		e.remove(victim{path: c.Path(), size: c.Size, written: c.Used.UnixNano()})
		if d.HasBlob(before) {
			t.Error("it is not evicted")
		}
		i++
	}}
	p.began = time.Now().Add(-time.Hour)
	d.surveyWith(t, p)
	if i == 0 {
		t.Fatal("nothing has happened meanwhile")
	}
	var stored int64
	if err := d.Walk(t.Context(), func(c Content) error { stored += c.Size; return nil }); err != nil {
		t.Fatal(err)
	}
	// Of the folder that the survey was in, it may count too much, and never too little.
	if used := d.Used(); used < stored || used > stored+int64(30*i) {
		t.Errorf("%d bytes are in the account, %d are stored", used, stored)
	}
	if err := d.survey(t.Context(), nil); err != nil || d.Used() != stored {
		t.Errorf("afterwards a survey counts %d bytes of %d, %v", d.Used(), stored, err)
	}
}

// surveyWith surveys at a pace that rests after each look at the clock.
func (d *Dir) surveyWith(t *testing.T, p *pace) {
	t.Helper()
	if err := d.survey(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

func TestRecentManifestsAreDroppedInAllRepositories(t *testing.T) {
	t.Parallel()
	var c recent
	dgst, other := digest.FromString("a"), digest.FromString("b")
	for i := range 10 {
		r := Repository{"docker.io", fmt.Sprint(i)}
		c.put(r, &Manifest{Digest: dgst, Body: []byte("body")})
		c.put(r, &Manifest{Digest: other, Body: []byte("body")})
	}
	c.remove(c.byKey[recentKey{Repository{"docker.io", "5"}, dgst}])
	c.remove(c.byKey[recentKey{Repository{"docker.io", "9"}, dgst}])
	c.remove(c.byKey[recentKey{Repository{"docker.io", "0"}, dgst}])
	c.drop(dgst)
	if len(c.byKey) != 10 || c.bytes != 40 || len(c.byDigest) != 1 || c.order.Len() != 10 {
		t.Errorf("%d are left, %d bytes, of %d digests", len(c.byKey), c.bytes, len(c.byDigest))
	}
	for e := c.order.Front(); e != nil; e = e.Next() {
		if e.Value.(*recentEntry).key.digest != other {
			t.Error("a dropped one is left")
		}
	}
	c.drop(other)
	c.drop(other)
	if len(c.byKey)+c.bytes+len(c.byDigest)+c.order.Len() != 0 {
		t.Errorf("%+v is left", &c)
	}
}

func BenchmarkDropOneOfManyRecentManifests(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var c recent
			for i := range n {
				c.put(alpine, &Manifest{Digest: digest.FromString(fmt.Sprint(i))})
			}
			m := &Manifest{Digest: digest.FromString("x")}
			for b.Loop() {
				c.put(alpine, m)
				c.drop(m.Digest)
			}
		})
	}
}
