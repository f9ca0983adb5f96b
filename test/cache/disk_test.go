package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// smallDisk mounts a file system of so many bytes until the end of the test.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	return harness.Mount(t, "sidemirror-test", "tmpfs", fmt.Sprintf("size=%d", size))
}

// startOn starts a rig whose cache is on a small disk.
func startOn(t *testing.T, disk string, o quirky.Options) *rig {
	t.Helper()
	return start(t, o, func(_ *quirky.Server, h *harness.Options) { h.Cache = filepath.Join(disk, "cache") })
}

// Source: rpardini/docker-registry-proxy#90.
func TestImageLargerThanTheDiskIsPulledWhole(t *testing.T) {
	for what, blobs := range map[string]quirky.Blobs{
		"of known size":               {},
		"of unknown size":             {Chunked: true},
		"of unknown size, not ranged": {Chunked: true, NoRange: true},
	} {
		t.Run(what, func(t *testing.T) {
			r := startOn(t, smallDisk(t, 4<<20), quirky.Options{Blobs: blobs})
			big := quirky.NewImage(false, "larger", 9<<20, 7<<20, 100)
			r.up.Add("team/big", "v1", big)
			for range 2 {
				harness.Together(3, func(int) { r.pullAs(harness.Client(t), "team/big", big) })
			}
			r.settles()
			r.pull()
			r.keeps(image.Blobs...)
		})
	}
}

// Source: rpardini/docker-registry-proxy#90.
func TestMoreImagesThanTheDiskHoldsAreAllPulledWhole(t *testing.T) {
	disk := smallDisk(t, 4<<20)
	r := startOn(t, disk, quirky.Options{})
	for n := range 12 {
		seed := fmt.Sprintf("many-%d", n)
		i := quirky.NewImage(false, seed, 1<<20, 200<<10)
		r.up.Add("team/"+seed, "v1", i)
		r.pullAs(harness.Client(t), "team/"+seed, i)
		r.pullAs(harness.Client(t), "team/"+seed, i)
		content(t, r.folder, nil)
	}
	r.settles()
	// What came last is still there.
	r.up.Forget()
	last := quirky.NewImage(false, "many-11", 1<<20, 200<<10)
	r.pullAs(harness.Client(t), "team/many-11", last)
	r.asked("GET", "/blobs/"+last.Blobs[2].Digest.String(), 0)
}

// Source: rpardini/docker-registry-proxy#90.
func TestDiskFilledByOtherProgramsDoesNotKeepClientsFromPulling(t *testing.T) {
	disk := smallDisk(t, 8<<20)
	r := startOn(t, disk, quirky.Options{})
	warm := quirky.NewImage(false, "warm", 500<<10)
	r.up.Add("team/warm", "v1", warm)
	r.pullAs(harness.Client(t), "team/warm", warm)
	r.keeps(warm.Blobs...)
	release := harness.FillDisk(t, disk)
	for range 3 {
		r.pull()
		r.pullAs(harness.Client(t), "team/warm", warm)
	}
	r.settles()
	release()
	r.pull()
	r.keeps(image.Blobs...)
	r.up.Forget()
	r.pull()
	r.asked("GET", "", 0)
}

// What a start on a full disk leaves behind must not be in the way of all later ones.
//
// Source: rpardini/docker-registry-proxy#90.
func TestStartOnAFullDiskDoesNoLastingHarm(t *testing.T) {
	disk := smallDisk(t, 4<<20)
	release := harness.FillDisk(t, disk)
	r := startOn(t, disk, quirky.Options{})
	r.pull()
	release()
	next := r.restart(nil)
	next.pull()
	next.keeps(image.Blobs...)
}

// Killed between making VERSION and writing it, or cut off from power soon after.
func TestKilledAtItsFirstStartItKeepsThingsAtTheNext(t *testing.T) {
	for _, file := range []string{"VERSION", "KEY"} {
		folder := filepath.Join(t.TempDir(), "cache")
		if err := errors.Join(os.Mkdir(folder, 0o755), os.WriteFile(filepath.Join(folder, file), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		r := start(t, quirky.Options{}, func(_ *quirky.Server, h *harness.Options) { h.Cache = folder })
		r.pull()
		r.Eventually("with an empty "+file+" content is kept", func() bool {
			found := content(t, folder, nil)
			return found[layer.Digest] != "" && found[image.Digest] != ""
		})
	}
}

func TestFolderOfAnotherLayoutIsLeftAlone(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "cache")
	if err := errors.Join(os.Mkdir(folder, 0o755), os.WriteFile(filepath.Join(folder, "VERSION"), []byte("99\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	r := start(t, quirky.Options{}, func(_ *quirky.Server, h *harness.Options) { h.Cache = folder })
	r.pull()
	names, err := os.ReadDir(folder)
	if err != nil || len(names) != 1 {
		t.Errorf("in a folder of layout 99 there are now %v, %v", names, err)
	}
}

func TestFolderThatBecomesReadOnlyServesWhatItHas(t *testing.T) {
	disk := smallDisk(t, 8<<20)
	r := startOn(t, disk, quirky.Options{})
	r.pull()
	r.keeps(image.Blobs...)
	r.settles()
	cold := quirky.NewImage(false, "cold", 500<<10)
	r.up.Add("team/cold", "v1", cold)
	remount(t, disk, syscall.MS_RDONLY)
	for _, state := range []string{"remounted", "started on it"} {
		if state == "started on it" {
			r = r.restart(nil)
		}
		r.up.Forget()
		r.pull()
		r.asked("GET", "", 0)
		r.pullAs(harness.Client(t), "team/cold", cold)
		r.whole("a range", r.Get(path("team/cold", "blobs/"+cold.Blobs[0].Digest.String()), nil), cold.Blobs[0].Bytes)
	}
	remount(t, disk, 0)
	r.pullAs(harness.Client(t), "team/cold", cold)
	r.keeps(cold.Blobs...)
}

func remount(t *testing.T, disk string, flags uintptr) {
	t.Helper()
	if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT|flags, ""); err != nil {
		t.Fatalf("remounting: %v", err)
	}
}
