package transfer

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// kills is how often a daemon is killed in the middle of a transfer, if $SIDEMIRROR_TEST_KILLS does
// not say otherwise. "make test-kills" says 200.
const kills = 12

func rounds(t *testing.T) int {
	t.Helper()
	n := kills
	if s := os.Getenv("SIDEMIRROR_TEST_KILLS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatalf("SIDEMIRROR_TEST_KILLS: %v", err)
		}
	}
	return n
}

// A daemon is killed while several connections fetch a blob, and the next one goes on with what
// is on disk. At any instant what it serves and stores is right.
func TestKilledAtAnyInstantOfAParallelTransferNothingWrongIsServedAfterwards(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("the seed of the instants is %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	u := newUpstream(t, slow, right, big)
	h := harness.Options{
		Listen: []string{harness.FreeAddress(t)}, Cache: filepath.Join(t.TempDir(), "cache"),
		Registries: []harness.Registry{{Name: name, Upstreams: []string{u.URL()}}},
	}
	cut, whole := 0, false
	for n := range rounds(t) {
		s := harness.Start(t, h)
		done := make(chan struct{})
		go func() {
			defer close(done)
			r := &rig{s, t, h}
			if n%3 == 2 {
				if r.pieces(big, 8) > 0 {
					cut++
				}
				return
			}
			a := harness.Fetch(harness.Client(t), "GET", s.URL()+blobPath(big), nil)
			r.neverWrong(fmt.Sprint("round ", n), a, big)
			if whole = a.Err == nil && a.Status == 200; !whole {
				cut++
			}
		}()
		<-time.After(time.Duration(random.Int64N(int64(600 * time.Millisecond))))
		s.Kill()
		<-done
		keepsNothingWrong(t, h.Cache)
		if n%4 == 3 {
			r := &rig{harness.Start(t, h), t, h}
			r.whole(fmt.Sprint("after round ", n), big)
			r.Stop()
			whole = true
		}
		if whole { // begin anew
			forget(t, h.Cache)
		}
	}
	t.Logf("%d kills cut a pull off", cut)
	if cut == 0 {
		t.Error("no kill came in the middle of a pull: this says little")
	}
	r := &rig{harness.Start(t, h), t, h}
	r.whole("afterwards", big)
	r.keepsNothingWrong()
}

// forget removes what a cache holds.
func forget(t *testing.T, folder string) {
	t.Helper()
	for _, name := range []string{"blobs", "partial"} {
		err := filepath.WalkDir(filepath.Join(folder, name), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				err = os.Remove(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// half starts a daemon whose upstream sends half of the blob, and ends it by end.
func half(t *testing.T, end func(s *harness.Sidemirror)) (*upstream, harness.Options) {
	t.Helper()
	g := newGate(t)
	u := newUpstream(t, 0, g.through(), big)
	h := harness.Options{
		Listen: []string{harness.FreeAddress(t)}, Cache: filepath.Join(t.TempDir(), "cache"),
		Registries: []harness.Registry{{Name: name, Upstreams: []string{u.URL()}}},
	}
	s := harness.Start(t, h)
	done := make(chan harness.Answer)
	go func() { done <- harness.Fetch(harness.Client(t), "GET", s.URL()+blobPath(big), nil) }()
	<-g.half
	s.Eventually("most of the half is on disk", func() bool { return onDisk(t, h.Cache) > large/4 })
	end(s)
	a := <-done
	a.Spoiled(t, "the client of a process that ended")
	u.repair(right)
	u.sent.Store(0)
	return u, h
}

// onDisk returns how many bytes the partial blobs of a cache take.
func onDisk(t *testing.T, folder string) int64 {
	t.Helper()
	var blocks int64
	_ = filepath.WalkDir(filepath.Join(folder, "partial"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			blocks += allocated(path)
		}
		return nil
	})
	return blocks
}

func TestWhatWasFetchedBeforeTheEndOfAProcessIsNotFetchedAgain(t *testing.T) {
	u, h := half(t, func(s *harness.Sidemirror) { s.Kill() })
	r := &rig{harness.Start(t, h), t, h}
	r.whole("after the kill", big)
	if sent := u.sent.Load(); sent > large*4/5 {
		t.Errorf("%d bytes of %d were fetched again", sent, large)
	}
	r.keepsNothingWrong()
}

// The clock of a host without a battery jumps at boot, in either direction.
func TestAClockThatJumpedMeanwhileSpoilsNothing(t *testing.T) {
	for _, jump := range []time.Duration{-20 * 365 * 24 * time.Hour, 20 * 365 * 24 * time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			_, h := half(t, func(s *harness.Sidemirror) { s.Kill() })
			err := filepath.WalkDir(h.Cache, func(path string, _ fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				return os.Chtimes(path, time.Now().Add(jump), time.Now().Add(jump))
			})
			if err != nil {
				t.Fatal(err)
			}
			r := &rig{harness.Start(t, h), t, h}
			r.whole("the first client", big)
			r.whole("the next client", big)
			r.keepsNothingWrong()
			r = r.again()
			r.whole("after another start", big)
		})
	}
}

// shiftTimes makes all times of a cache differ from the clock, as they do after the clock was set
// by -by.
func shiftTimes(t *testing.T, folder string, by time.Duration) {
	t.Helper()
	recorded := regexp.MustCompile(`"(since|seen)":"([^"]+)"`)
	records := 0
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it has just been renamed
		}
		if err != nil {
			return err
		}
		if !d.IsDir() && strings.Contains(path, "/repositories/") {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			shifted := recorded.ReplaceAllFunc(text, func(field []byte) []byte {
				parts := recorded.FindSubmatch(field)
				at, err := time.Parse(time.RFC3339Nano, string(parts[2]))
				if err != nil {
					t.Errorf("%s has a time that cannot be read: %v", path, err)
				}
				records++
				return fmt.Appendf(nil, `"%s":"%s"`, parts[1], at.Add(by).Format(time.RFC3339Nano))
			})
			if err := os.WriteFile(path, shifted, 0o600); err != nil {
				return err
			}
		}
		err = os.Chtimes(path, time.Now().Add(by), time.Now().Add(by))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	})
	if err != nil || records == 0 {
		t.Fatalf("%d times in records, %v", records, err)
	}
}

// What is in memory goes by the monotonic clock. What is on disk is compared with the clock: after a
// jump of the one its times differ from the other, which is how the test makes it jump.
func TestAClockThatJumpsWhileTheDaemonRunsSpoilsNothing(t *testing.T) {
	for _, jump := range []time.Duration{-20 * 365 * 24 * time.Hour, 20 * 365 * 24 * time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			g, stored, next := newGate(t), blob("stored", 2<<20), blob("next", 3<<20)
			u := newUpstream(t, 0, right, big, stored, next)
			r := start(t, nil, u)
			r.whole("before the jump", stored)
			u.sent.Store(0)
			u.repair(g.through())
			atHalf(r, g, big, func() { shiftTimes(t, r.options.Cache, jump) })
			calls, _ := u.counts()
			r.whole("what was stored before", stored)
			r.whole("what was under way", big)
			if broken := r.pieces(big, 8); broken > 0 {
				t.Errorf("%d pieces did not come whole", broken)
			}
			if again, _ := u.counts(); again != calls {
				t.Errorf("what is stored was fetched again, in %d requests", again-calls)
			}
			r.readRanges(next, []int{0, 1 << 20, 2 << 20}, 1000)
			shiftTimes(t, r.options.Cache, -jump)
			calls, _ = u.counts()
			r.readRanges(next, []int{0, 1 << 20, 2 << 20}, 1000)
			if again, _ := u.counts(); again != calls {
				t.Errorf("ranges that are stored were fetched again, in %d requests", again-calls)
			}
			r.whole("the whole of what is there in part", next)
			r.keepsNothingWrong()
			r = r.again()
			for _, b := range []quirky.Blob{stored, big, next} {
				r.whole("after a restart", b)
			}
		})
	}
}

// Whatever a crash of the machine leaves of a partial blob, no byte of it is served that is wrong.
func TestAPartialBlobThatIsDamagedSpoilsNothing(t *testing.T) {
	for what, damage := range map[string]func(f *os.File, size int64) error{
		"truncated": func(f *os.File, size int64) error { return f.Truncate(size / 2) },
		"empty":     func(f *os.File, _ int64) error { return f.Truncate(0) },
		"longer":    func(f *os.File, size int64) error { return f.Truncate(size + 4096) },
		"zeroes at the end": func(f *os.File, size int64) error {
			_, err := f.WriteAt(make([]byte, 100), max(0, size-100))
			return err
		},
		"zeroes at the start": func(f *os.File, size int64) error {
			_, err := f.WriteAt(make([]byte, min(size, 64<<10)), 0)
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			_, h := half(t, func(s *harness.Sidemirror) { s.Kill() })
			files := 0
			err := filepath.WalkDir(filepath.Join(h.Cache, "partial"), func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				files++
				f, err := os.OpenFile(path, os.O_RDWR, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				info, err := f.Stat()
				if err != nil {
					return err
				}
				return damage(f, info.Size())
			})
			if err != nil || files == 0 {
				t.Fatalf("%d files, %v", files, err)
			}
			r := &rig{harness.Start(t, h), t, h}
			r.neverWrong("the first client", r.get(big), big)
			r.keepsNothingWrong()
			r.whole("in the end", big)
		})
	}
}
