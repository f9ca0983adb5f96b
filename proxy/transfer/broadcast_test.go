package transfer

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
)

// streaming is transfers without a cache.
func streaming(t *testing.T) *Transfers {
	t.Helper()
	s := New(nil)
	t.Cleanup(func() {
		s.Close()
		if held := s.broadcasts.held.Load(); held != 0 || len(s.broadcasts.open) > 0 {
			t.Errorf("%d bytes are still held, by %d broadcasts", held, len(s.broadcasts.open))
		}
	})
	return s
}

// opened opens n readers of the same blob.
func opened(t *testing.T, s *Transfers, want Want, n int) []*Reader {
	t.Helper()
	var all []*Reader
	for range n {
		r, err := s.Open(t.Context(), want)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		all = append(all, r)
	}
	return all
}

// readAll reads all readers to their ends at the same time, and compares what they get.
func readAll(t *testing.T, all []*Reader, content []byte) {
	t.Helper()
	var wait sync.WaitGroup
	for _, r := range all {
		wait.Go(func() {
			var got bytes.Buffer
			if _, err := r.CopyTo(t.Context(), &got, 0, -1); err != nil || !bytes.Equal(got.Bytes(), content) {
				t.Errorf("%d bytes, %v", got.Len(), err)
			}
		})
	}
	wait.Wait()
}

func TestStreamsOfOneBlobShareAConnection(t *testing.T) {
	t.Parallel()
	for name, chunked := range map[string]bool{"with a length": false, "without one": true} {
		t.Run(name, func(t *testing.T) {
			s := streaming(t)
			content := random(40, 1<<20)
			g := newRegistry(content)
			g.mirrors[0].chunked = chunked
			gate := make(chan int)
			g.mirrors[0].body = func(_ int, b io.Reader) io.Reader { return &gated{Reader: b, allow: gate} }
			all := opened(t, s, wantOf(g, content), 100)
			close(gate)
			readAll(t, all, content)
			if stats := s.Stats(); g.requests() != 1 || stats.Requests != 1 || stats.Fetched != int64(len(content)) {
				t.Errorf("%d requests; counted are %+v", g.requests(), stats)
			}
		})
	}
}

func TestAStreamThatLeavesEndsNoOther(t *testing.T) {
	t.Parallel()
	s := streaming(t)
	content := random(41, 1<<20)
	g := newRegistry(content)
	gate := make(chan int)
	g.mirrors[0].body = func(_ int, b io.Reader) io.Reader { return &gated{Reader: b, allow: gate} }
	all := opened(t, s, wantOf(g, content), 3)
	all[0].Close() // for which the upstream was asked
	gate <- 1 << 18
	if _, err := all[1].CopyTo(t.Context(), io.Discard, 0, 1<<18); err != nil {
		t.Fatal(err)
	}
	all[1].Close()
	close(gate)
	readAll(t, all[2:], content)
	if g.requests() != 1 {
		t.Errorf("%d requests: %v", g.requests(), g.asked)
	}
}

func TestWhenAllStreamsLeaveTheConnectionEnds(t *testing.T) {
	t.Parallel()
	s := streaming(t)
	content := random(42, 1<<20)
	g := newRegistry(content)
	g.mirrors[0].body = func(_ int, b io.Reader) io.Reader { return &gated{Reader: b, allow: make(chan int)} }
	for _, r := range opened(t, s, wantOf(g, content), 3) {
		r.Close()
	}
	s.broadcasts.wait.Wait()
	if g.open != 0 {
		t.Errorf("%d connections are open", g.open)
	}
}

// A slow client must neither hold the others up nor get wrong bytes.
func TestAStreamThatFallsBehindReadsTheRestAlone(t *testing.T) {
	t.Parallel()
	s := streaming(t)
	content := random(43, 3*broadcastWindow)
	g := newRegistry(content)
	all := opened(t, s, wantOf(g, content), 2)
	const read = 100 << 10
	var slow bytes.Buffer
	if _, err := all[1].CopyTo(t.Context(), &slow, 0, read); err != nil {
		t.Fatal(err)
	}
	readAll(t, all[:1], content)
	if _, err := all[1].CopyTo(t.Context(), &slow, read, -1); err != nil || !bytes.Equal(slow.Bytes(), content) {
		t.Errorf("the slow one got %d bytes, %v", slow.Len(), err)
	}
	if g.requests() != 2 || g.asked[1].Start < read || !g.options[1].Resume {
		t.Errorf("asked for %v, %+v", g.asked, g.options)
	}
}

func TestAStreamJoinsABroadcastThatHasItsBytes(t *testing.T) {
	t.Parallel()
	s := streaming(t)
	content := random(44, 3*broadcastWindow)
	g := newRegistry(content)
	first := opened(t, s, wantOf(g, content), 1)[0]
	copied := int64(0)
	for _, step := range []struct {
		to       int64
		requests int // after one more client has come
	}{{1 << 20, 1}, {broadcastWindow + 1<<20, 2}} {
		if _, err := first.CopyTo(t.Context(), io.Discard, copied, step.to); err != nil {
			t.Fatal(err)
		}
		copied = step.to
		one := opened(t, s, wantOf(g, content), 1)[0]
		if g.requests() != step.requests {
			t.Errorf("after %d bytes there were %d requests", step.to, g.requests())
		}
		var got bytes.Buffer
		if _, err := one.CopyTo(t.Context(), &got, 0, step.to); err != nil || !bytes.Equal(got.Bytes(), content[:step.to]) {
			t.Errorf("%d bytes, %v", got.Len(), err)
		}
		one.Close()
	}
}

// Another name may not be allowed the blob, and one that is alone gets what its own request brings.
func TestStreamsOfDifferentCallersShareNothing(t *testing.T) {
	t.Parallel()
	s := streaming(t)
	content := random(45, 1<<20)
	g := newRegistry(content)
	other, alone := wantOf(g, content), wantOf(g, content)
	other.By, alone.Alone = "another caller", true
	elsewhere := wantOf(&registry{mirrors: []*mirror{{name: "https://two.example", content: content}}}, content)
	all := opened(t, s, wantOf(g, content), 1)
	for i, want := range []Want{other, alone, alone, elsewhere} {
		all = append(all, opened(t, s, want, 1)...)
		if want.Source == Source(g) && g.requests() != i+2 {
			t.Errorf("%d requests for %d callers", g.requests(), i+2)
		}
	}
	readAll(t, all, content)
}

func TestStreamsThatABrokenConnectionCarriedResumeTogether(t *testing.T) {
	t.Parallel()
	s := streaming(t)
	content := random(46, 2<<20)
	g := newRegistry(content)
	gate := make(chan int)
	g.mirrors[0].body = func(n int, b io.Reader) io.Reader {
		if n > 1 {
			return b
		}
		return &gated{Reader: brokenAfter(1<<20, b), allow: gate}
	}
	all := opened(t, s, wantOf(g, content), 100)
	close(gate)
	readAll(t, all, content)
	if n := g.requests(); n < 2 || n > 50 { // those that resume late have one of their own
		t.Errorf("%d requests", n)
	}
}

func TestWrongBytesReachNoStreamWhole(t *testing.T) {
	t.Parallel()
	s := streaming(t)
	content := random(47, 1<<20)
	wrong := bytes.Clone(content)
	wrong[len(wrong)-1] ^= 1
	g := newRegistry(wrong)
	var wait sync.WaitGroup
	for _, r := range opened(t, s, wantOf(g, content), 20) {
		wait.Go(func() {
			if n, err := r.CopyTo(t.Context(), io.Discard, 0, -1); !errors.Is(err, ErrMismatch) || n >= int64(len(content)) {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
	wait.Wait()
}

func TestARefusalEndsAllStreamsThatWaitedForIt(t *testing.T) {
	t.Parallel()
	s := streaming(t)
	refused := errors.New("refused")
	g := newRegistry(nil)
	g.mirrors[0].answer = func(int, Range, *Part) error { return refused }
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			if _, err := s.Open(t.Context(), wantOf(g, nil)); !errors.Is(err, refused) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
}

// Clients come, read at any pace, pause and leave, and connections break off.
func TestAnyInterleavingOfStreamsGivesExactBytes(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("the seed is %d", seed)
	s := streaming(t)
	content := random(48, 2*broadcastWindow)
	g := newRegistry(content)
	g.mirrors[0].body = func(n int, b io.Reader) io.Reader {
		if n%3 == 0 {
			return brokenAfter(int64(n)<<19, b)
		}
		return b
	}
	var wait sync.WaitGroup
	for i := range 40 {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		wait.Go(func() {
			for range random.IntN(1000) {
				runtime.Gosched()
			}
			r, err := s.Open(t.Context(), wantOf(g, content))
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			leaves := int64(len(content))
			if random.IntN(4) == 0 {
				leaves = random.Int64N(leaves)
			}
			var got bytes.Buffer
			for at := int64(0); at < leaves; at = int64(got.Len()) {
				end := min(leaves, at+1+random.Int64N(1<<20))
				if _, err := r.CopyTo(t.Context(), &got, at, end); err != nil {
					t.Error(err)
					return
				}
				for range random.IntN(100) {
					runtime.Gosched()
				}
			}
			if !bytes.Equal(got.Bytes(), content[:leaves]) {
				t.Errorf("%d wrong bytes", got.Len())
			}
		})
	}
	wait.Wait()
}
