package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// bytesIn returns how many bytes the files below folder have, and how many they and the folders take
// on disk.
func bytesIn(t *testing.T, folder string) (size, disk int64) {
	t.Helper()
	err := filepath.WalkDir(folder, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it has just been removed
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return nil // likewise
		}
		disk += info.Sys().(*syscall.Stat_t).Blocks * 512
		if !e.IsDir() {
			size += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return size, disk
}

// filesIn returns the sizes of the files of content below a cache folder, by inode: a file keeps it
// when it moves from one folder to another.
func filesIn(t *testing.T, folder string) map[uint64]int64 {
	t.Helper()
	sizes := map[uint64]int64{}
	for _, part := range []string{"blobs", "manifests", "partial"} {
		err := filepath.WalkDir(filepath.Join(folder, part), func(_ string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return ignoreMissing(err)
			}
			info, err := e.Info()
			if err != nil {
				return ignoreMissing(err)
			}
			sizes[info.Sys().(*syscall.Stat_t).Ino] = info.Size()
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	return sizes
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// The first version exceeded max_size by 40 % while pulling.
func TestMaxSizeHoldsAtAnyMomentOfManyPulls(t *testing.T) {
	const limit = 40 << 20
	r := start(t, quirky.Options{}, env("max_size=40MiB"))
	images := make([]quirky.Image, 60)
	for n := range images {
		images[n] = quirky.NewImage(false, fmt.Sprint("many ", n), 2<<20, 300<<10)
		r.up.Add(fmt.Sprint("team/", n), "v1", images[n])
	}
	ended := make(chan struct{})
	worst := make(chan int64)
	go func() {
		var most int64
		before := filesIn(t, r.folder)
		for {
			select {
			case <-ended:
				worst <- most
				return
			default:
			}
			// What is in both walks was there at the moment between them. A single walk counts
			// what was removed and what took its place.
			now, size := filesIn(t, r.folder), int64(0)
			for file, n := range now {
				size += min(n, before[file])
			}
			most, before = max(most, size), now
		}
	}()
	for first := 0; first < len(images); first += 6 {
		harness.Together(6, func(i int) { r.pullAs(harness.Client(t), fmt.Sprint("team/", first+i), images[first+i]) })
	}
	close(ended)
	if most := <-worst; most > limit*102/100 || most < limit/2 {
		t.Errorf("at most there were %d bytes, of a limit of %d", most, limit)
	}
	r.settles()
	if _, disk := bytesIn(t, r.folder); disk > limit*110/100 {
		t.Errorf("the folder takes %d bytes on disk, of a limit of %d", disk, limit)
	}
}

// A blob that finds no room passes through, and the next pull of it is stored: room was made.
func TestAFullCacheServesEveryPullAndStoresAgain(t *testing.T) {
	r := start(t, quirky.Options{}, env("max_size=6MiB"))
	for n := range 12 {
		i := quirky.NewImage(false, fmt.Sprint("full ", n), 2<<20)
		repository := fmt.Sprint("team/full-", n)
		r.up.Add(repository, "v1", i)
		r.Eventually("the layer is stored", func() bool {
			r.pullAs(harness.Client(t), repository, i)
			return r.has(i.Blobs[1].Digest)
		})
	}
}

// The daemon has died at any moment: what it had promised to itself is counted at the next start.
func TestAfterAKillTheCacheStaysWithinItsSize(t *testing.T) {
	const limit = 8 << 20
	r := start(t, quirky.Options{}, env("max_size=8MiB"))
	for round := range 3 {
		for n := range 4 {
			i := quirky.NewImage(false, fmt.Sprint("killed ", round, n), 1500<<10)
			repository := fmt.Sprintf("team/killed-%d-%d", round, n)
			r.up.Add(repository, "v1", i)
			r.pullAs(harness.Client(t), repository, i)
		}
		r.Kill()
		r = run(t, r.up, r.options)
	}
	r.settles()
	size := int64(0)
	for _, folder := range []string{"blobs", "manifests", "partial"} {
		n, _ := bytesIn(t, filepath.Join(r.folder, folder))
		size += n
	}
	if size > limit*102/100 {
		t.Errorf("%d bytes are stored, of a limit of %d", size, limit)
	}
}

// cache runs sidemirror cache on the folder of r and returns what it printed.
func (r *rig) cache(args ...string) string {
	r.t.Helper()
	args = append([]string{"cache", "--dir", r.folder}, args...)
	out, err := process.Run(r.t.Context(), nil, harness.Binary(r.t), args...)
	if err != nil {
		r.t.Fatalf("sidemirror %v: %v\n%s", args, err, out)
	}
	return out
}

// The commands read the files. They work next to the daemon and without one, with the index of
// holders and without.
func TestCacheCommandsNeedNeitherTheDaemonNorTheIndex(t *testing.T) {
	for what, damage := range map[string]func(folder string) error{
		"as it is": func(string) error { return nil },
		"a cache of the version before": func(folder string) error {
			return errors.Join(os.RemoveAll(filepath.Join(folder, "holders")), os.Remove(filepath.Join(folder, "USAGE")))
		},
		"the index of another cache": func(folder string) error {
			return os.WriteFile(filepath.Join(folder, "holders/COMPLETE"), []byte("x\n"), 0o600)
		},
	} {
		for _, running := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, the daemon runs: %v", what, running), func(t *testing.T) {
				mine, theirs := quirky.NewImage(false, "mine", 30<<10), quirky.NewImage(false, "theirs", 10)
				shared := quirky.NewImage(false, "shared", 30<<10).Blobs[1]
				a, b := composed(mine.Blobs[0], mine.Blobs[1], shared), composed(theirs.Blobs[0], theirs.Blobs[1], shared)
				r := start(t, quirky.Options{}, nil)
				r.up.Add("team/a", "v1", a)
				r.up.Add("team/b", "v1", b)
				r.pullAs(harness.Client(t), "team/a", a)
				r.pullAs(harness.Client(t), "team/b", b)
				r.keeps(append(a.Blobs, b.Blobs...)...)
				if !running {
					r.Stop()
				}
				if err := damage(r.folder); err != nil {
					t.Fatal(err)
				}
				if out := r.cache("ls", name+"/team/a"); !strings.Contains(out, name+"/team/a:v1") || !strings.Contains(out, "1 image,") {
					t.Errorf("cache ls prints\n%s", out)
				}
				if out := r.cache("rm", name+"/team/a:v1"); !strings.Contains(out, "in 3 files") {
					t.Errorf("cache rm prints\n%s", out)
				}
				if !r.has(shared.Digest) || r.has(mine.Blobs[1].Digest) || r.has(mine.Blobs[0].Digest) {
					t.Error("cache rm has not removed what the image alone lists")
				}
				if out := r.cache("ls"); strings.Contains(out, "team/a") || !strings.Contains(out, "team/b:v1") || !strings.Contains(out, "complete") {
					t.Errorf("then cache ls prints\n%s", out)
				}
				if !running {
					return
				}
				r.up.Forget()
				r.pullAs(harness.Client(t), "team/b", b)
				r.asked("GET", "/blobs/", 0)
				r.pullAs(harness.Client(t), "team/a", a)
				r.keeps(a.Blobs...)
			})
		}
	}
}

// A cache of the previous version has no index and no account. The daemon counts it, and then knows
// which repositories hold what, and stores again.
func TestCacheOfThePreviousVersionIsCountedAndUsed(t *testing.T) {
	r := start(t, quirky.Options{}, nil)
	r.pull()
	r.keeps(image.Blobs...)
	r.settles()
	r.Stop()
	if err := errors.Join(os.RemoveAll(filepath.Join(r.folder, "holders")), os.Remove(filepath.Join(r.folder, "USAGE"))); err != nil {
		t.Fatal(err)
	}
	r = run(t, r.up, r.options)
	r.Eventually("the index is there", func() bool {
		_, err := os.Stat(filepath.Join(r.folder, "holders/COMPLETE"))
		return err == nil
	})
	r.pull()
	r.asked("GET", "/blobs/", 0)
	more := quirky.NewImage(false, "more", 30<<10)
	r.up.Add("team/more", "v1", more)
	r.Eventually("new content is stored", func() bool {
		r.pullAs(harness.Client(t), "team/more", more)
		return r.has(more.Blobs[1].Digest)
	})
}
