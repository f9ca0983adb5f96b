package transfer

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// spread returns n ranges of length bytes that neither touch nor are worth joining, in random order.
func spread(n, length, size int) []int {
	firsts := make([]int, n)
	for i := range firsts {
		firsts[i] = i * (size / n)
	}
	rand.New(rand.NewPCG(3, 4)).Shuffle(n, func(i, j int) { firsts[i], firsts[j] = firsts[j], firsts[i] })
	if last := (n-1)*(size/n) + length; last > size {
		panic("the blob is too short")
	}
	return firsts
}

// readRanges reads ranges of b, four at once as a snapshotter does, and checks their bytes.
func (r *rig) readRanges(b quirky.Blob, firsts []int, length int) {
	r.t.Helper()
	const readers = 4
	harness.Together(readers, func(reader int) {
		client := harness.Client(r.t)
		for i := reader; i < len(firsts); i += readers {
			first := firsts[i]
			a := harness.Fetch(client, "GET", r.URL()+blobPath(b), http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", first, first+length-1)}})
			if a.Status != http.StatusPartialContent || a.Err != nil || !bytes.Equal(a.Body, b.Bytes[first:first+length]) {
				r.t.Errorf("the range at %d: status %d, %d bytes, %v", first, a.Status, len(a.Body), a.Err)
			}
		}
	})
}

// Source: containers of large images that are started by the snapshotters of stargz, SOCI and nydus.
func TestManyRangesAreFetchedOnceHoweverManyTimesTheyAreRead(t *testing.T) {
	const length = 4 << 10
	b := blob("many ranges", 512<<20)
	firsts := spread(4000, length, len(b.Bytes))
	u := newUpstream(t, 0, right, b)
	r := start(t, nil, u)
	r.readRanges(b, firsts, length)
	calls, _ := u.counts()
	if calls != len(firsts) {
		t.Errorf("%d requests upstream for %d ranges", calls, len(firsts))
	}
	again := func(when string) {
		t.Helper()
		before, _ := u.counts()
		r.readRanges(b, firsts, length)
		if after, _ := u.counts(); after != before {
			t.Errorf("%s: the same ranges made %d requests upstream", when, after-before)
		}
	}
	again("once more")
	r = r.again()
	again("after a restart")
	r.Kill()
	r = &rig{harness.Start(t, r.options), t, r.options}
	again("after a kill")
}

// Source: a bench whose disk had less than min_free left.
func TestWithoutRoomInTheCacheEachRequestIsOneRequestUpstream(t *testing.T) {
	const length = 64 << 10
	disk := harness.Mount(t, "sidemirror-test", "tmpfs", "size=100m")
	lazy, first, second := blob("without room", 60<<20), blob("first", 3<<20), blob("second", 40<<20)
	u := newUpstream(t, 0, right, lazy, first, second)
	r := start(t, func(h *harness.Options) { h.Cache = filepath.Join(disk, "cache") }, u)
	release := harness.FillDisk(t, disk)
	firsts := spread(60, length, len(lazy.Bytes))
	for range 2 {
		before, _ := u.counts()
		r.readRanges(lazy, firsts, length)
		if after, _ := u.counts(); after-before != len(firsts) {
			t.Errorf("%d requests upstream for %d ranges", after-before, len(firsts))
		}
	}
	for _, b := range []quirky.Blob{first, second} {
		before, _ := u.counts()
		r.whole("the whole of a blob", b)
		if after, _ := u.counts(); after-before != 1 {
			t.Errorf("%d requests upstream for one blob of %d bytes", after-before, len(b.Bytes))
		}
	}
	release()
	r.readRanges(lazy, firsts, length)
	before, _ := u.counts()
	r.readRanges(lazy, firsts, length)
	if after, _ := u.counts(); after != before {
		t.Errorf("with room again the same ranges made %d requests upstream", after-before)
	}
	release = harness.FillDisk(t, disk)
	before, _ = u.counts()
	r.readRanges(lazy, firsts, length)
	if after, _ := u.counts(); after != before {
		t.Errorf("on a full disk what is stored made %d requests upstream", after-before)
	}
	r.whole("the whole of a blob that is stored in part", lazy)
	before, _ = u.counts()
	r.readRanges(lazy, firsts, length)
	if after, _ := u.counts(); after != before {
		t.Errorf("after a whole without room the same ranges made %d requests upstream", after-before)
	}
	release()
	r.whole("the whole with room", lazy)
	r.keepsNothingWrong()
}
