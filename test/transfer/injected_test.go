package transfer

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
)

// inject lets system calls of a running daemon fail, as "pwrite64:error=ENOSPC:when=3+" says: from
// the third one of each thread on. stop lets them succeed again, and returns how many failed.
func inject(r *rig, fault string) (stop func() int) {
	r.t.Helper()
	call, _, _ := strings.Cut(fault, ":")
	out := filepath.Join(r.t.TempDir(), "calls")
	ctx, cancel := context.WithCancel(r.t.Context())
	trace := exec.CommandContext(ctx, process.Path(r.t, "strace"), "-f", "-o", out, "-e", "trace="+call, "-e", "inject="+fault, "-p", fmt.Sprint(r.PID()))
	trace.Cancel = func() error { return trace.Process.Signal(os.Interrupt) } // so that it detaches
	trace.WaitDelay = 10 * time.Second
	if err := trace.Start(); err != nil {
		cancel()
		r.t.Fatal(err)
	}
	// A daemon that is still traced might not end.
	detach := sync.OnceFunc(func() {
		cancel()
		_ = trace.Wait() // it ends by the signal
	})
	r.t.Cleanup(detach)
	r.Eventually("all threads are traced", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", r.PID()))
		for _, thread := range threads {
			status, err := os.ReadFile(thread)
			if err != nil || strings.Contains(string(status), "\nTracerPid:\t0\n") {
				return false
			}
		}
		return err == nil && len(threads) > 0
	})
	return func() int {
		r.t.Helper()
		detach()
		calls, err := os.ReadFile(out)
		if err != nil {
			r.t.Fatal(err)
		}
		return strings.Count(string(calls), "(INJECTED)")
	}
}

// unsized answers without a length.
func unsized(_ *upstream, c *call) {
	c.ranged, c.first, c.last = false, 0, len(c.blob.Bytes)-1
	c.header(func(h http.Header) {
		h.Del("Content-Length")
		h.Del("Accept-Ranges")
	})
	c.body(c.wanted())
}

// The faults are those of a disk and its file system: no room, a quota, a device that fails, a file
// system that has become read-only. A real disk shows each of them at some calls; here they come at
// every kind of call that a transfer makes.
func TestAFailureOfAnySystemCallThatStoresBreaksNoPull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("tracing another process needs root")
	}
	for _, fault := range []string{
		"fallocate:error=ENOSPC:when=1", "fallocate:error=EIO:when=1+", "fallocate:error=EDQUOT:when=1+",
		"pwrite64:error=ENOSPC:when=1", "pwrite64:error=ENOSPC:when=4+", "pwrite64:error=EIO:when=3", "pwrite64:error=EROFS:when=3+",
		"flock:error=ENOLCK:when=1+",
		"fsync:error=EIO:when=1+",
		"renameat:error=ENOSPC:when=1+", "renameat:error=EROFS:when=1",
		"mkdirat:error=ENOSPC:when=1+", "unlinkat:error=EROFS:when=1+",
	} {
		t.Run(fault, func(t *testing.T) {
			next, endless := blob("next", 3<<20), blob("endless", 3<<20)
			u := newUpstream(t, 0, right, big, next)
			v := newUpstream(t, 0, unsized, endless)
			r := start(t, func(h *harness.Options) {
				h.Registries = append(h.Registries, harness.Registry{Name: "unsized.test", Upstreams: []string{v.URL()}})
			}, u)
			unsizedPath := strings.Replace(blobPath(endless), name, "unsized.test", 1)
			stop := inject(r, fault)
			harness.Together(3, func(i int) {
				if i == 0 {
					if broken := r.pieces(big, 8); broken > 0 {
						t.Errorf("%d pieces did not come whole", broken)
					}
					return
				}
				harness.Fetch(harness.Client(t), "GET", r.URL()+blobPath(big), nil).Whole(t, "a client during the fault", big.Bytes)
			})
			r.whole("the next client", big)
			r.whole("another blob", next)
			r.Get(unsizedPath, nil).Whole(t, "a blob without a length", endless.Bytes)
			if failed := stop(); failed == 0 {
				t.Error("no call failed: this says nothing")
			} else {
				t.Logf("%d calls failed", failed)
			}
			r.whole("a client after the fault", big)
			r.Get(unsizedPath, nil).Whole(t, "the blob without a length after the fault", endless.Bytes)
			r.keepsNothingWrong()
			r = r.again()
			r.whole("a client after a restart", big)
			r.keepsNothingWrong()
		})
	}
}

// A whole that cannot be verified must not end cleanly: the engine asks again.
func TestADiskThatCannotBeReadBreaksNoRangeAndSpoilsNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("tracing another process needs root")
	}
	for _, fault := range []string{"pread64:error=EIO:when=1+", "pread64:error=EIO:when=2"} {
		t.Run(fault, func(t *testing.T) {
			u := newUpstream(t, 0, right, big)
			r := start(t, nil, u)
			stop := inject(r, fault)
			harness.Together(3, func(i int) {
				if i == 0 {
					if broken := r.pieces(big, 8); broken > 0 {
						t.Errorf("%d pieces did not come whole", broken)
					}
					return
				}
				r.neverWrong("a client during the fault", harness.Fetch(harness.Client(t), "GET", r.URL()+blobPath(big), nil), big)
			})
			if failed := stop(); failed == 0 {
				t.Error("no call failed: this says nothing")
			}
			r.whole("a client after the fault", big)
			r.keepsNothingWrong()
		})
	}
}

func TestABlobThatTheDiskCannotSendIsFetchedAgain(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("tracing another process needs root")
	}
	u := newUpstream(t, 0, right, big)
	r := start(t, nil, u)
	r.whole("before", big)
	calls, _ := u.counts()
	stop := inject(r, "sendfile:error=EIO:when=1+")
	r.get(big).Spoiled(t, "a client of a blob that is stored and cannot be read")
	if stop() == 0 {
		t.Error("no call failed: this says nothing")
	}
	r.whole("the next client", big)
	if again, _ := u.counts(); again == calls {
		t.Error("a blob that the disk cannot read was served from it again")
	}
	r.keepsNothingWrong()
	forgotten := blob("forgotten", 9<<20)
	v := newUpstream(t, 0, right, forgotten)
	s := start(t, nil, v)
	stop = inject(s, "sendfile:error=EIO:when=1+")
	s.whole("a client of a blob that comes in", forgotten)
	if stop() == 0 {
		t.Error("no call failed while a blob came in: this says nothing")
	}
	s.whole("the client after it", forgotten)
}
