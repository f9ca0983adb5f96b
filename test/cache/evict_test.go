package cache

import (
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// Source: distribution#2367.
func TestBlobThatTwoRepositoriesShareOutlivesTheEvictionOfOne(t *testing.T) {
	mine, theirs := quirky.NewImage(false, "mine", 300<<10), quirky.NewImage(false, "theirs", 10)
	shared := quirky.NewImage(false, "shared", 300<<10).Blobs[1]
	a := composed(mine.Blobs[0], mine.Blobs[1], shared)
	b := composed(theirs.Blobs[0], theirs.Blobs[1], shared)
	r := start(t, quirky.Options{}, nil)
	r.up.Add("team/a", "v1", a)
	r.up.Add("team/b", "v1", b)
	r.pullAs(harness.Client(t), "team/a", a)
	r.pullAs(harness.Client(t), "team/b", b)
	r.keeps(append(a.Blobs, b.Blobs...)...)
	r.asked("GET", "/blobs/"+shared.Digest.String(), 1)
	r.unusedFor(30 * day)
	r.pullAs(harness.Client(t), "team/b", b)
	r.set("max_size", "500KiB")
	r.Eventually("what only the one repository uses is removed", func() bool { return !r.has(mine.Blobs[1].Digest) })
	r.up.Forget()
	r.pullAs(harness.Client(t), "team/b", b)
	r.asked("GET", "/blobs/", 0)
	// The repository that lost a blob gets it again. Until the daemon has read the new limit, the
	// old one may still remove it.
	r.set("max_size", "20GiB")
	r.Eventually("the blob is stored again", func() bool {
		r.pullAs(harness.Client(t), "team/a", a)
		return r.has(mine.Blobs[1].Digest)
	})
}

// Source: distribution#4957.
func TestEvictionFreesTheDisk(t *testing.T) {
	// A file system of its own says what is really free.
	disk := smallDisk(t, 16<<20)
	r := start(t, quirky.Options{}, func(_ *quirky.Server, h *harness.Options) { h.Cache = filepath.Join(disk, "cache") })
	free := available(t, disk)
	var images []quirky.Image
	for _, seed := range []string{"a", "b", "c", "d"} {
		i := quirky.NewImage(false, "evict-"+seed, 2<<20)
		r.up.Add("team/"+seed, "v1", i)
		r.pullAs(harness.Client(t), "team/"+seed, i)
		r.keeps(i.Blobs...)
		images = append(images, i)
	}
	if used := free - available(t, disk); used < 8<<20 {
		t.Fatalf("four images of 2 MiB take %d bytes of disk", used)
	}
	r.unusedFor(day)
	r.pullAs(harness.Client(t), "team/b", images[1])
	r.set("max_size", "3MiB")
	r.Eventually("the disk is free again", func() bool { return free-available(t, disk) < 3<<20 })
	for i, kept := range []bool{false, true, false, false} {
		if r.has(images[i].Blobs[1].Digest) != kept {
			t.Errorf("image %d is kept: %v; what was used last should stay", i, !kept)
		}
	}
	r.up.Forget()
	r.pullAs(harness.Client(t), "team/b", images[1])
	r.asked("GET", "/blobs/", 0)
}

// Source: distribution#4957.
func TestWhatIsBeingReadIsNotRemovedUnderItsReader(t *testing.T) {
	big := quirky.NewImage(false, "read", 24<<20) // more than a connection's buffers hold
	r := start(t, quirky.Options{}, nil)
	r.up.Add(repo, "big", big)
	b := big.Blobs[1]
	r.whole("the layer", r.Get(blobPath(b), nil), b.Bytes)
	r.keeps(b)
	resp, err := harness.Client(t).Get(r.URL() + blobPath(b))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 1000)
	if _, err := io.ReadFull(resp.Body, first); err != nil {
		t.Fatal(err)
	}
	r.set("max_size", "1MiB")
	r.whole("another that is kept no more", r.Get(blobPath(layer), nil), layer.Bytes)
	if !sameAs(io.MultiReader(strings.NewReader(string(first)), resp.Body), b.Digest) {
		t.Error("the reader got other bytes")
	}
	resp.Body.Close()
	// No client reads it any more, so the next blob makes room by evicting it.
	small := quirky.NewImage(false, "next", 600<<10)
	r.up.Add(repo, "next", small)
	r.Eventually("it is removed", func() bool {
		r.whole("a small one", r.Get(blobPath(small.Blobs[1]), nil), small.Blobs[1].Bytes)
		return !r.has(b.Digest)
	})
}

func TestCacheStaysWithinMaxSizeWhileImagesComeIn(t *testing.T) {
	const limit = 2 << 20
	r := start(t, quirky.Options{}, env("max_size=2MiB"))
	for n := range 12 {
		seed := "in-" + string(rune('a'+n))
		i := quirky.NewImage(false, seed, 500<<10, 100<<10)
		r.up.Add("team/"+seed, "v1", i)
		r.pullAs(harness.Client(t), "team/"+seed, i)
	}
	r.Eventually("what is kept is within max_size", func() bool { return r.onDisk() <= limit })
	if n := len(content(t, r.folder, nil)); n == 0 {
		t.Error("nothing is left")
	}
	// Larger than all of it: it comes through all the same, and pushes nothing out.
	big := quirky.NewImage(false, "huge", 3<<20)
	r.up.Add(repo, "huge", big)
	before := len(content(t, r.folder, nil))
	r.whole("a layer larger than max_size", r.Get(blobPath(big.Blobs[1]), nil), big.Blobs[1].Bytes)
	r.keepsNothingOf("what is larger than max_size", big.Blobs[1].Digest)
	if after := len(content(t, r.folder, nil)); after < before {
		t.Errorf("it pushed out %d others", before-after)
	}
}

// available is what a file system has left, in bytes.
func available(t *testing.T, folder string) int64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(folder, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}
