package cache

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// model is a cache that is as simple as can be: what is stored, and when it was last used.
type model struct {
	sizes map[digest.Digest]int64
	used  map[digest.Digest]time.Time
}

func (m *model) total() (n int64) {
	for _, size := range m.sizes {
		n += size
	}
	return n
}

// coldest returns what was used longest ago.
func (m *model) coldest() (coldest digest.Digest) {
	for dgst := range m.sizes {
		if coldest == "" || m.used[dgst].Before(m.used[coldest]) {
			coldest = dgst
		}
	}
	return coldest
}

// A random sequence of fetches, uses, evictions, restarts, kills and removals by another process ends
// with the content that the simplest cache would have, and never exceeds max_size.
func TestEvictionDoesWhatANaiveModelDoes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			runModel(t, rand.New(rand.NewPCG(seed, 7)))
		})
	}
}

func runModel(t *testing.T, dice *rand.Rand) {
	const limit = 200_000
	path := t.TempDir()
	limits := Limits{MaxSize: limit}
	d := reopened(t, path, limits)
	defer func() { d.Close() }()
	m := &model{sizes: map[digest.Digest]int64{}, used: map[digest.Digest]time.Time{}}
	clock := time.Now().Add(-1000 * time.Hour)
	use := func(dgst digest.Digest) {
		clock = clock.Add(time.Hour)
		if err := d.root.Chtimes(contentPath("blobs", dgst), clock, clock); err != nil {
			t.Fatal(err)
		}
		m.used[dgst] = clock
	}
	for step := range 300 {
		switch what := dice.IntN(20); {
		case what < 10:
			content := strings.Repeat(fmt.Sprint(step, " "), 1+dice.IntN(4000))
			dgst, err := fetched(t, d, content, false)
			if err != nil { // there is no room: the eviction that it has asked for comes
				if _, _, err := d.evict(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
				m.evict(t, d, clock)
				if dgst, err = fetched(t, d, content, false); err != nil {
					t.Fatalf("step %d: after an eviction: %v", step, err)
				}
			}
			m.sizes[dgst] = int64(len(content))
			use(dgst)
		case what < 15 && len(m.sizes) > 0:
			use(m.any(dice))
		case what == 15:
			if _, _, err := d.evict(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			m.evict(t, d, clock)
		case what == 16 && len(m.sizes) > 0: // by another process
			gone := m.any(dice)
			if err := d.root.Remove(contentPath("blobs", gone)); err != nil {
				t.Fatal(err)
			}
			delete(m.sizes, gone)
		case what == 17:
			if err := d.survey(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			if d.Used() != m.total() {
				t.Fatalf("step %d: a survey counts %d bytes of %d", step, d.Used(), m.total())
			}
		case what == 18:
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = reopened(t, path, limits)
		case what == 19: // killed: nothing is written at the end
			d.folder.Close()
			d.root.Close()
			d = reopened(t, path, limits)
		}
		if !d.space.counted { // it was killed before it had stored anything
			if err := d.survey(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		}
		if total := m.total(); total > limit {
			t.Fatalf("step %d: %d bytes are stored of %d", step, total, limit)
		} else if used := d.Used(); used < total {
			t.Fatalf("step %d: the account says %d bytes of %d", step, used, total)
		}
	}
	m.check(t, d)
}

// evict takes out of the model what an eviction has removed, which must be what was used longest ago.
func (m *model) evict(t *testing.T, d *Dir, clock time.Time) {
	t.Helper()
	for len(m.sizes) > 0 {
		coldest := m.coldest()
		if d.HasBlob(coldest) {
			break
		}
		delete(m.sizes, coldest)
	}
	m.check(t, d)
}

// check compares the model with the files.
func (m *model) check(t *testing.T, d *Dir) {
	t.Helper()
	there := map[digest.Digest]bool{}
	err := d.Walk(context.Background(), func(c Content) error {
		there[c.Digest] = true
		if m.sizes[c.Digest] != c.Size {
			t.Errorf("%s has %d bytes, the model %d", c.Digest, c.Size, m.sizes[c.Digest])
		}
		return nil
	})
	if err != nil || len(there) != len(m.sizes) {
		t.Fatalf("%d files are stored, %d in the model: %v", len(there), len(m.sizes), err)
	}
}

func (m *model) any(dice *rand.Rand) digest.Digest {
	return slices.Sorted(maps.Keys(m.sizes))[dice.IntN(len(m.sizes))]
}

// reopened opens a cache that may be open already. The test closes it.
func reopened(t *testing.T, path string, limits Limits) *Dir {
	t.Helper()
	d, err := Open(path, limits)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
