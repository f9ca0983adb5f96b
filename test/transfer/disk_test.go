package transfer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// gate lets an upstream send half of a blob, on all connections together, and the rest when it is
// opened.
type gate struct {
	half, open chan struct{}
	once       sync.Once
}

func newGate(t *testing.T) *gate {
	g := &gate{half: make(chan struct{}), open: make(chan struct{})}
	t.Cleanup(g.release)
	return g
}

func (g *gate) release() { g.once.Do(func() { close(g.open) }) }

// through is an answer that waits at the gate.
func (g *gate) through() answer {
	var reached sync.Once
	return func(u *upstream, c *call) {
		c.header(nil)
		const chunk = 256 << 10
		part := c.wanted()
		for len(part) > 0 {
			if int(u.sent.Load()) >= len(c.blob.Bytes)/2 {
				reached.Do(func() { close(g.half) })
				select {
				case <-g.open:
				case <-c.r.Context().Done():
					return
				}
			}
			n := min(chunk, len(part))
			if !c.body(part[:n]) {
				return
			}
			part = part[n:]
		}
	}
}

// atHalf pulls b through r and calls do when half of it has come.
func atHalf(r *rig, g *gate, b quirky.Blob, do func()) {
	r.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.whole("a client while the disk fails", b)
	}()
	<-g.half
	do()
	g.release()
	<-done
}

// small is not worth several connections, big is.
var small = blob("small", 9<<20+77)

func TestADiskThatFillsUpInTheMiddleBreaksNoPull(t *testing.T) {
	for _, b := range []quirky.Blob{small, big} {
		t.Run(fmt.Sprint(len(b.Bytes)), func(t *testing.T) {
			disk := harness.Mount(t, "sidemirror-test", "tmpfs", "size=100m")
			g := newGate(t)
			u := newUpstream(t, 0, g.through(), b)
			r := start(t, func(h *harness.Options) { h.Cache = filepath.Join(disk, "cache") }, u)
			var release func()
			atHalf(r, g, b, func() { release = harness.FillDisk(t, disk) })
			r.whole("the next client, on a full disk", b)
			release()
			r.whole("a client on a disk with room", b)
			r.keepsNothingWrong()
			r = r.again()
			r.whole("a client after a restart", b)
		})
	}
}

// failingDisk is a file system whose device fails: its image is on a tmpfs that is smaller. Writes
// that do not fit there are I/O errors of the device, and the file system becomes read-only.
func failingDisk(t *testing.T, room string) (folder string, fail func()) {
	t.Helper()
	under := harness.Mount(t, "sidemirror-test", "tmpfs", "size="+room)
	image := filepath.Join(under, "image")
	run(t, "truncate", "-s", "256M", image)
	run(t, "mkfs.ext4", "-q", "-E", "lazy_itable_init=1,nodiscard", "-O", "^has_journal", image)
	device := strings.TrimSpace(run(t, "losetup", "--find", "--show", image))
	t.Cleanup(func() { run(t, "losetup", "--detach", device) })
	return harness.Mount(t, device, "ext4", "errors=remount-ro"), func() { harness.FillDisk(t, under) }
}

func run(t *testing.T, command ...string) string {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).Output()
	if err != nil {
		t.Fatalf("%v: %v", command, err)
	}
	return string(out)
}

func TestADiskWithIOErrorsBreaksNoPull(t *testing.T) {
	for _, b := range []quirky.Blob{small, big} {
		t.Run(fmt.Sprint(len(b.Bytes)), func(t *testing.T) {
			disk, fail := failingDisk(t, "128m")
			g := newGate(t)
			u := newUpstream(t, 0, g.through(), b, blob("next", 1<<20))
			r := start(t, func(h *harness.Options) { h.Cache = filepath.Join(disk, "cache") }, u)
			atHalf(r, g, b, fail)
			for range 3 {
				r.whole("the next client", b)
				r.whole("another blob", blob("next", 1<<20))
			}
			r.Stop()
		})
	}
}

// The kernel makes a file system read-only when it finds it damaged; "abort" lets it find that.
func TestAFileSystemThatBecomesReadOnlyBreaksNoPull(t *testing.T) {
	for _, b := range []quirky.Blob{small, big} {
		t.Run(fmt.Sprint(len(b.Bytes)), func(t *testing.T) {
			disk, _ := failingDisk(t, "256m")
			g, next := newGate(t), blob("next", 1<<20)
			u := newUpstream(t, 0, right, b, next)
			r := start(t, func(h *harness.Options) { h.Cache = filepath.Join(disk, "cache") }, u)
			r.whole("before", next)
			u.sent.Store(0)
			u.repair(g.through())
			atHalf(r, g, b, func() { run(t, "mount", "-o", "remount,abort", disk) })
			if err := os.WriteFile(filepath.Join(disk, "probe"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
				t.Fatalf("the file system is not read-only: %v", err)
			}
			for range 3 {
				r.whole("the next client", b)
				if broken := r.pieces(b, 8); broken > 0 {
					t.Errorf("%d pieces did not come whole", broken)
				}
				r.whole("what was stored before", next)
			}
			r = r.again()
			r.whole("a client after a restart", b)
			r.whole("what was stored before, after a restart", next)
		})
	}
}

func TestABlobLargerThanTheDiskIsServedOverOneConnection(t *testing.T) {
	disk := harness.Mount(t, "sidemirror-test", "tmpfs", "size=16m")
	u := newUpstream(t, 0, right, big)
	r := start(t, func(h *harness.Options) { h.Cache = filepath.Join(disk, "cache") }, u)
	r.whole("the first client", big)
	harness.Together(3, func(int) { r.whole("clients at once", big) })
	r.keepsNothingWrong()
}

// allocated returns how many bytes of the disk a file takes.
func allocated(path string) int64 {
	var stat syscall.Stat_t
	if syscall.Stat(path, &stat) != nil {
		return 0
	}
	return stat.Blocks * 512
}
