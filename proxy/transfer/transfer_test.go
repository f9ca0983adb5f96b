package transfer

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

func TestAHundredClientsAreOneTransfer(t *testing.T) {
	t.Parallel()
	s := newSetUp(t, cache.Limits{})
	content := random(1, 300<<10)
	g := newRegistry(content)
	var wait sync.WaitGroup
	for range 100 {
		wait.Go(func() {
			if got, err := take(s.Transfers, wantOf(g, content)); errors.Is(err, ErrStored) {
				return
			} else if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wait.Wait()
	if g.requests() != 1 || !s.stored(t, content) {
		t.Errorf("%d requests", g.requests())
	}
}

func TestASlowOrLeavingClientHarmsNoOther(t *testing.T) { // zot#2416
	t.Parallel()
	s := newSetUp(t, cache.Limits{})
	content := random(2, 2<<20)
	g := newRegistry(content)
	gate := make(chan int)
	g.mirrors[0].body = func(_ int, b io.Reader) io.Reader { return &gated{Reader: b, allow: gate} }
	first, err := s.Open(t.Context(), wantOf(g, content)) // begins it, and never reads
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	leaving, err := s.Open(t.Context(), wantOf(g, content))
	if err != nil {
		t.Fatal(err)
	}
	reading, err := s.Open(t.Context(), wantOf(g, content))
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Close()
	done := make(chan error, 1)
	go func() {
		var got bytes.Buffer
		_, err := reading.CopyTo(t.Context(), &got, 0, -1)
		if err == nil && !bytes.Equal(got.Bytes(), content) {
			err = errors.New("wrong bytes")
		}
		done <- err
	}()
	gate <- 1 << 19
	leaving.Close()
	close(gate)
	if err := <-done; err != nil || g.requests() != 1 {
		t.Errorf("%v, %d requests", err, g.requests())
	}
}

func TestWhenAllLeaveEarlyTheTransferEndsAndLateItIsFinished(t *testing.T) {
	t.Parallel()
	for name, part := range map[string]int{"early": 1 << 18, "late": 3 << 18} {
		t.Run(name, func(t *testing.T) {
			s := newSetUp(t, cache.Limits{})
			content := random(3, 1<<20)
			g := newRegistry(content)
			gate := make(chan int)
			g.mirrors[0].body = func(n int, b io.Reader) io.Reader {
				if n > 1 {
					return b
				}
				return &gated{Reader: b, allow: gate}
			}
			r, err := s.Open(t.Context(), wantOf(g, content))
			if err != nil {
				t.Fatal(err)
			}
			gate <- part
			if _, err := r.CopyTo(t.Context(), io.Discard, 0, int64(part)); err != nil {
				t.Fatal(err)
			}
			r.Close()
			close(gate)
			if stored := s.stored(t, content); stored != (name == "late") {
				t.Errorf("it is stored: %v", stored)
			}
			// What is present is not fetched again.
			if got, err := take(s.Transfers, wantOf(g, content)); name == "early" && (err != nil || !bytes.Equal(got, content)) {
				t.Errorf("the next one: %d bytes, %v", len(got), err)
			}
			if name == "early" && (g.requests() != 2 || g.asked[1].Start < int64(part)) {
				t.Errorf("asked for %v after %d bytes", g.asked, part)
			}
		})
	}
}

func TestAnothersTransferIsSharedOnlyWithCallersThatMayHaveTheBlob(t *testing.T) {
	t.Parallel()
	s := newSetUp(t, cache.Limits{})
	content := random(4, 100<<10)
	g := newRegistry(content)
	gate := make(chan int)
	g.mirrors[0].body = func(_ int, b io.Reader) io.Reader { return &gated{Reader: b, allow: gate} }
	owner, err := s.Open(t.Context(), wantOf(g, content))
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	other := wantOf(g, content)
	other.By = "another caller"
	if _, err := s.Open(t.Context(), other); !errors.Is(err, ErrForeign) {
		t.Errorf("another caller: %v", err)
	}
	other.Granted = true
	granted, err := s.Open(t.Context(), other)
	if err != nil {
		t.Fatalf("one that may have it: %v", err)
	}
	granted.Close()
	close(gate)
	if _, err := owner.CopyTo(t.Context(), io.Discard, 0, -1); err != nil || g.requests() != 1 {
		t.Errorf("%v, %d requests", err, g.requests())
	}
}

// A hostile registry must not spoil a digest for callers of another one.
func TestUnverifiedBytesOfOneUpstreamDoNotReachCallersOfAnother(t *testing.T) {
	t.Parallel()
	s := newSetUp(t, cache.Limits{})
	content := random(5, 1<<20)
	wrong := bytes.Clone(content)
	wrong[10] ^= 1
	hostile, honest := newRegistry(wrong), newRegistry(content)
	hostile.mirrors[0].name = "https://hostile.example"
	part := Range{0, 500 << 10}
	first := wantOf(hostile, content, part)
	if got, err := take(s.Transfers, first); err != nil || !bytes.Equal(got, wrong[:500<<10]) {
		t.Fatalf("the hostile registry's own caller: %d bytes, %v", len(got), err)
	}
	for _, ranges := range [][]Range{{part}, nil} {
		want := wantOf(honest, content, ranges...)
		want.Granted = true
		got, err := take(s.Transfers, want)
		if err != nil || !bytes.Equal(got, content[:len(got)]) || len(got) == 0 {
			t.Errorf("a caller of another registry got %d bytes, %v", len(got), err)
		}
	}
	if !s.stored(t, content) {
		t.Error("it is not stored")
	}
}

func TestRefusalIsSharedWithinOneNameOnly(t *testing.T) {
	t.Parallel()
	s := newSetUp(t, cache.Limits{})
	content := []byte("content")
	refused := errors.New("refused")
	bad, good := newRegistry(content), newRegistry(content)
	entered, release := make(chan struct{}), make(chan struct{})
	bad.mirrors[0].answer = func(int, Range, *Part) error {
		close(entered)
		<-release
		return refused
	}
	results, other := make(chan error, 2), make(chan error, 1)
	wantBad := wantOf(bad, content)
	wantBad.By = "bad"
	go func() { _, err := take(s.Transfers, wantBad); results <- err }()
	<-entered
	go func() { _, err := take(s.Transfers, wantBad); results <- err }()
	wantGood := wantOf(good, content)
	wantGood.Granted = true
	go func() { _, err := take(s.Transfers, wantGood); other <- err }()
	for joined := false; !joined; {
		s.mu.Lock()
		joined = s.running[wantBad.Digest][0].users == 3
		s.mu.Unlock()
	}
	close(release)
	for range 2 {
		if err := <-results; !errors.Is(err, refused) {
			t.Errorf("in the same name: %v", err)
		}
	}
	if err := <-other; err != nil || bad.requests() != 1 || good.requests() != 1 {
		t.Errorf("in another name: %v; %d and %d requests", err, bad.requests(), good.requests())
	}
}

func TestTamperedOrShortBlobDoesNotStay(t *testing.T) { // harbor#22555
	t.Parallel()
	content := random(6, 1<<20)
	tampered := bytes.Clone(content)
	tampered[len(content)/2] ^= 1
	for name, m := range map[string]*mirror{
		"tampered":                 {content: tampered},
		"tampered, without length": {content: tampered, chunked: true},
		"short":                    {content: content[:1000]},
		"short, without length":    {content: content[:1000], chunked: true},
		"nothing":                  {},
		"long":                     {content: append(bytes.Clone(content), 'x')},
	} {
		t.Run(name, func(t *testing.T) {
			for _, stores := range []bool{true, false} {
				s := newSetUp(t, cache.Limits{})
				m.name = "https://one.example"
				want := wantOf(&registry{mirrors: []*mirror{m}}, content)
				want.Alone = !stores
				if got, err := take(s.Transfers, want); !errors.Is(err, ErrMismatch) || bytes.Equal(got, content) {
					t.Errorf("stores %v: %d bytes, %v", stores, len(got), err)
				}
				if s.stored(t, content) {
					t.Errorf("stores %v: it stays", stores)
				}
				if left, _ := fs.Glob(os.DirFS(s.path), "partial/*"); len(left) > 0 {
					t.Errorf("stores %v: left behind: %v", stores, left)
				}
			}
		})
	}
}

func TestUpstreamsWithWrongBytesOrRepeatedResetsAreReplacedWithinThePull(t *testing.T) {
	t.Parallel()
	content := random(7, 3<<20)
	late := bytes.Clone(content)
	late[len(late)-10] ^= 1
	for name, first := range map[string]*mirror{
		"wrong last bytes": {content: late},
		"resets":           {content: content, body: func(_ int, b io.Reader) io.Reader { return brokenAfter(100<<10, b) }},
		"resets at once":   {content: content, body: func(_ int, b io.Reader) io.Reader { return brokenAfter(0, b) }},
		"resets in the middle": {content: content, body: func(n int, b io.Reader) io.Reader {
			if n == 1 {
				return brokenAfter(1<<20, b)
			}
			return brokenAfter(0, b)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, stores := range []bool{true, false} {
				s := newSetUp(t, cache.Limits{})
				first.name = "https://one.example"
				g := &registry{mirrors: []*mirror{first, {name: "https://two.example", content: content}}}
				want := wantOf(g, content)
				want.Alone = !stores
				got, err := take(s.Transfers, want)
				if !stores && name == "wrong last bytes" {
					// Without a cache what was delivered before cannot be compared byte by byte.
					if err == nil && !bytes.Equal(got, content) {
						t.Error("a clean end with wrong bytes")
					}
				} else if err != nil || !bytes.Equal(got, content) {
					t.Errorf("stores %v: %d bytes, %v", stores, len(got), err)
				}
				before := len(g.from)
				want.Alone = true
				if got, err := take(s.Transfers, want); err != nil || !bytes.Equal(got, content) {
					t.Errorf("stores %v: the next pull: %d bytes, %v", stores, len(got), err)
				}
				for _, from := range g.from[before:] {
					if from == first.name {
						t.Errorf("stores %v: the next pull asked the first upstream", stores)
					}
				}
				if stores && !s.stored(t, content) {
					t.Error("it is not stored")
				}
			}
		})
	}
}

func TestAReaderThatGotWrongBytesIsBrokenOffAndNotContinued(t *testing.T) {
	t.Parallel()
	s := newSetUp(t, cache.Limits{})
	content := random(8, 2<<20)
	wrong := bytes.Clone(content)
	wrong[5] ^= 1
	g := newRegistry(wrong)
	g.mirrors = append(g.mirrors, &mirror{name: "https://two.example", content: content})
	gate := make(chan int)
	g.mirrors[0].body = func(_ int, b io.Reader) io.Reader { return &gated{Reader: b, allow: gate} }
	r, err := s.Open(t.Context(), wantOf(g, content))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	gate <- 1 << 20
	seen := writerFunc(func(b []byte) (int, error) {
		select {
		case <-gate:
		default:
			close(gate) // it has got some of the wrong bytes
		}
		return len(b), nil
	})
	if n, err := r.CopyTo(t.Context(), seen, 0, -1); !errors.Is(err, ErrMismatch) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if got, err := take(s.Transfers, wantOf(g, content)); !errors.Is(err, ErrStored) && (err != nil || !bytes.Equal(got, content)) {
		t.Errorf("the next pull: %d bytes, %v", len(got), err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestASmallWrongBlobIsNotSeenByTheClient(t *testing.T) {
	t.Parallel()
	for _, stores := range []bool{true, false} {
		s := newSetUp(t, cache.Limits{})
		content := []byte("foo")
		g := newRegistry([]byte("bar"))
		g.mirrors = append(g.mirrors, &mirror{name: "https://two.example", content: content})
		want := wantOf(g, content)
		want.Alone = !stores
		if got, err := take(s.Transfers, want); err != nil || string(got) != "foo" {
			t.Errorf("stores %v: %q, %v", stores, got, err)
		}
	}
}

func TestVerifiedIsCalledBeforeTheLastByte(t *testing.T) {
	t.Parallel()
	s := newSetUp(t, cache.Limits{})
	content := random(9, 300<<10)
	g := newRegistry(content)
	want := wantOf(g, content)
	var from atomic.Pointer[string]
	want.Verified = func(name string) { from.Store(&name) }
	if _, err := take(s.Transfers, want); err != nil {
		t.Fatal(err)
	}
	if name := from.Load(); name == nil || *name != "https://one.example" {
		t.Errorf("%v", name)
	}
}

func TestWhatCannotBeStoredIsPassedOn(t *testing.T) {
	t.Parallel()
	content := random(44, 1<<20)
	for name, limits := range map[string]cache.Limits{
		"larger than the cache":   {MaxSize: 1000},
		"the disk must stay free": {MinFreeShare: 1},
	} {
		for _, chunked := range []bool{false, true} {
			s := newSetUp(t, limits)
			g := newRegistry(content)
			g.mirrors[0].chunked = chunked
			if got, err := take(s.Transfers, wantOf(g, content)); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s, chunked %v: %d bytes, %v", name, chunked, len(got), err)
			}
			if s.stored(t, content) {
				t.Errorf("%s: it is stored", name)
			}
		}
	}
}

func TestClosingEndsTransfersAndLeavesWhatIsPresent(t *testing.T) {
	t.Parallel()
	dir, err := cache.Open(t.TempDir(), cache.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	s := New(dir)
	content := random(45, 2<<20)
	g := newRegistry(content)
	gate := make(chan int)
	g.mirrors[0].body = func(n int, b io.Reader) io.Reader {
		if n > 1 {
			return b
		}
		return &gated{Reader: b, allow: gate}
	}
	r, err := s.Open(t.Context(), wantOf(g, content))
	if err != nil {
		t.Fatal(err)
	}
	gate <- 1 << 20
	if _, err := r.CopyTo(t.Context(), io.Discard, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { _, err := r.CopyTo(t.Context(), io.Discard, 1<<20, 2<<20); ended <- err }()
	s.Close()
	if err := <-ended; err == nil {
		t.Error("half a blob ended cleanly")
	}
	r.Close()
	next := New(dir)
	defer next.Close()
	if got, err := take(next, wantOf(g, content)); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if again := g.asked[len(g.asked)-1]; again.Start < 1<<20 {
		t.Errorf("asked for %v, though half is there", again)
	}
}
