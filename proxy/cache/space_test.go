package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestReservationsTogetherStayWithinMaxSize(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{MaxSize: 100_000})
	var mu sync.Mutex
	var held []*reservation
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			r, err := d.reserve(t.Context(), 9_000, false)
			if err != nil && !errors.Is(err, errNoRoom) {
				t.Error(err)
			}
			if err == nil {
				mu.Lock()
				held = append(held, r)
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if len(held) != 11 {
		t.Errorf("%d reservations of 9,000 bytes fit in 100,000", len(held))
	}
	for i, r := range held {
		r.wrote(9_000)
		if i%2 == 0 {
			r.release()
			r.release()
		} else {
			r.commit(contentPath("blobs", digest.FromString(fmt.Sprint(i))), 8_000)
			r.release()
		}
	}
	s := &d.space
	if s.used != 5*8_000 || s.reserved != 0 || s.unwritten != 0 {
		t.Errorf("%d bytes used, %d reserved, %d unwritten", s.used, s.reserved, s.unwritten)
	}
}

func TestAReservationThatGrowsBeyondMaxSizeIsRefused(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{MaxSize: 10_000})
	r, err := d.reserve(t.Context(), -1, false)
	if err != nil {
		t.Fatal(err)
	}
	defer r.release()
	for range 10 {
		if err := r.grow(t.Context(), 1_000); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.grow(t.Context(), 1); err == nil {
		t.Error("one byte more is granted")
	}
}

func TestAReservationThatATrustedCallerJoinsLeavesTheUntrustedShare(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{MaxSize: 100_000})
	r, err := d.reserve(t.Context(), 9_000, true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.release()
	if _, err := d.reserve(t.Context(), 2_000, true); !errors.Is(err, errNoRoom) {
		t.Errorf("11,000 bytes are granted of a share of 10,000: %v", err)
	}
	r.trust()
	r.trust()
	other, err := d.reserve(t.Context(), 2_000, true)
	if err != nil {
		t.Fatal(err)
	}
	other.release()
	if d.space.reservedUntrusted != 0 {
		t.Errorf("%d bytes of the share are reserved", d.space.reservedUntrusted)
	}
}

// The first version walked through all content and all records for each cold blob on a full disk.
func TestAFullCacheMakesRoomWithoutAWalkForEachBlob(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{MaxSize: 10_000_000})
	for i := range 600 {
		put(t, d, fmt.Sprint(i, " ", strings.Repeat("x", 10_000)), time.Duration(600-i)*time.Hour)
	}
	d.limits.Store(&Limits{MaxSize: 5_000_000})
	keep(t, d)
	for i := range 300 {
		eventuallyFetched(t, d, fmt.Sprint("new ", i, " ", strings.Repeat("y", 10_000)), false)
		if used := d.Used(); used > 5_000_000 {
			// The eviction after the change of the limit may still run, until the first blob has room.
			t.Fatalf("after blob %d there are %d bytes", i, used)
		}
	}
	if n := d.surveys.Load(); n > 3 {
		t.Errorf("%d walks for 300 blobs", n)
	}
	if n := d.sweeps.Load(); n > 2 {
		t.Errorf("%d walks over the records", n)
	}
}

func TestMoreIsFreedThanTheBlobThatNeedsRoom(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{MaxSize: 1_000_000})
	for i := range 98 {
		put(t, d, fmt.Sprint(i, strings.Repeat("x", 9_990)), time.Hour)
	}
	if _, _, err := d.evict(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if used := d.Used(); used > 950_000 || used < 930_000 {
		t.Errorf("%d bytes are left", used)
	}
	// Within the marks nothing goes.
	if _, files, err := d.evict(t.Context(), nil); err != nil || files != 0 {
		t.Errorf("%d more files are removed, %v", files, err)
	}
}

func TestAStartAfterAnOrderlyEndNeedsNoCount(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	d := reopened(t, path, Limits{MaxSize: 1 << 20})
	put(t, d, "layer", 0)
	putManifest(t, d, "{}")
	used := d.Used()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = reopened(t, path, Limits{MaxSize: 1 << 20})
	t.Cleanup(func() { d.Close() }) // after Keep has ended
	if d.countUnknown() || d.recordsUnknown() || d.Used() != used || used != 7 {
		t.Errorf("%d bytes of %d; it must be counted: %v", d.Used(), used, d.countUnknown())
	}
	keep(t, d)
	eventuallyFetched(t, d, "more", false)
	if n := d.surveys.Load() + d.sweeps.Load(); n != 0 {
		t.Errorf("%d walks", n)
	}
}

func TestWithoutAnAccountNothingIsStoredUntilItIsCounted(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(file string) error{
		"missing, as in a cache of the previous version": os.Remove,
		"empty":     func(file string) error { return os.Truncate(file, 0) },
		"truncated": func(file string) error { return os.Truncate(file, 20) },
		"damaged":   func(file string) error { return os.WriteFile(file, []byte(`{"exact":true,"used":-1}`), 0o600) },
		"older than what an earlier version has written": func(file string) error {
			later := time.Now().Add(time.Minute)
			return os.Chtimes(filepath.Join(filepath.Dir(file), "partial"), later, later)
		},
		"of another type": func(file string) error {
			return os.WriteFile(file, []byte(`{"exact":true,"used":"1"}`), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			d := reopened(t, path, Limits{MaxSize: 1 << 20})
			put(t, d, "layer", 0)
			if err := errors.Join(d.Close(), damage(filepath.Join(path, usageFile))); err != nil {
				t.Fatal(err)
			}
			d = reopened(t, path, Limits{MaxSize: 1 << 20})
			defer d.Close()
			if _, err := fetched(t, d, "more", false); !errors.Is(err, errNotCounted) || !errors.Is(err, ErrStorage) {
				t.Fatalf("before the count: %v", err)
			}
			if err := d.survey(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			if _, err := fetched(t, d, "more", false); err != nil || d.Used() != 9 {
				t.Errorf("after it: %v, %d bytes", err, d.Used())
			}
		})
	}
}

func TestPartialBlobsAtRestCountAndAreEvicted(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{MaxSize: 100_000})
	room, err := d.reserve(t.Context(), 64<<10, false)
	if err != nil {
		t.Fatal(err)
	}
	hex := digest.FromString("partial").Encoded()
	name := "partial/sha256-" + hex + "-0011"
	for file, n := range map[string]int{name + partialData: 64 << 10, name + partialList: 10, "partial/other": 10} {
		if err := d.root.WriteFile(file, make([]byte, n), fileMode); err != nil {
			t.Fatal(err)
		}
	}
	info, err := d.stat(name + partialData)
	if err != nil {
		t.Fatal(err)
	}
	room.wrote(64 << 10)
	room.commit(name+partialData, info.allocated)
	if err := d.survey(t.Context(), nil); err != nil || d.Used() != info.allocated {
		t.Fatalf("%d bytes are counted of %d, %v", d.Used(), info.allocated, err)
	}
	// While it is being fetched it is reserved, and no victim.
	d.reading[digest.FromString("partial")]++
	room = d.resume(name+partialData, info.allocated, false)
	d.limits.Store(&Limits{MaxSize: 50_000})
	if _, files, err := d.evict(t.Context(), nil); err != nil || files != 0 || d.Used() != 0 {
		t.Errorf("%d files removed, %d bytes, %v", files, d.Used(), err)
	}
	room.commit(name+partialData, info.allocated)
	d.leave(digest.FromString("partial"))
	if _, files, err := d.evict(t.Context(), nil); err != nil || files != 1 || d.Used() != 0 {
		t.Errorf("%d files removed, %d bytes left, %v", files, d.Used(), err)
	}
	left, err := os.ReadDir(filepath.Join(d.root.Name(), "partial"))
	if err != nil || len(left) != 1 {
		t.Errorf("left are %v, %v", left, err)
	}
}

func TestABlobThatCannotHaveRoomRemovesNothing(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	for i := range 20 {
		put(t, d, fmt.Sprint(i, strings.Repeat("x", 10_000)), time.Hour)
	}
	if err := d.survey(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	used := d.Used()
	free, err := d.free()
	if err != nil {
		t.Fatal(err)
	}
	for _, untrusted := range []bool{false, true} {
		if _, err := d.reserve(t.Context(), free+100*used, untrusted); err == nil || errors.Is(err, errNoRoom) {
			t.Errorf("more than the disk has: %v", err)
		}
	}
	if _, files, err := d.evict(t.Context(), nil); err != nil || files != 0 || d.Used() != used {
		t.Errorf("%d files are removed, %v", files, err)
	}
}

// Otherwise any user could keep the daemon busy with walks.
func TestAnUntrustedCallerWithoutRoomCausesNoWalks(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{MaxSize: 1_000_000})
	for i := range 97 {
		put(t, d, fmt.Sprint(i, strings.Repeat("x", 9_990)), time.Hour)
	}
	var held []*reservation
	for range 100 {
		r, err := d.reserve(t.Context(), 9_000, true)
		if err == nil {
			held = append(held, r)
		}
		if _, files, err := d.evict(t.Context(), nil); err != nil || files != 0 {
			t.Fatalf("%d files of trusted callers are removed, %v", files, err)
		}
	}
	for _, r := range held {
		r.release()
	}
	if n := d.surveys.Load(); n > 1 {
		t.Errorf("%d walks", n)
	}
}
