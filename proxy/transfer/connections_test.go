package transfer

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sidemirror/sidemirror/internal/extent"
	"github.com/sidemirror/sidemirror/proxy/cache"
)

// large is the content of a blob that is fetched over several connections, and smaller the sizes
// that make it large.
var (
	large   = sync.OnceValue(func() []byte { return random(50, 3<<20) })
	smaller = sizes{many: 1 << 20, piece: 512 << 10, mostPiece: 2 << 20, lastPiece: 64 << 10, nearby: 64 << 10}
)

// newLarge is newSetUp for large blobs.
func newLarge(t *testing.T) *setUp {
	t.Helper()
	s := newSetUp(t, cache.Limits{})
	s.sizes = smaller
	return s
}

// widen lets the transfer of want use n connections at once, as it does when it has measured that
// they are of use.
func (s *setUp) widen(want Want, n int) *transfer {
	s.mu.Lock()
	t := s.running[want.Digest][0]
	s.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ramp.allowed, t.ramp.settled = min(n, t.ramp.most), true
	t.schedule()
	return t
}

// begun opens a reader of a large blob whose first connection waits at the gate.
func begun(t *testing.T, s *setUp, g *registry, want Want) (*Reader, chan int) {
	t.Helper()
	gate := make(chan int)
	for _, m := range g.mirrors {
		m.body = func(n int, b io.Reader) io.Reader {
			if n > 1 {
				return b
			}
			return &gated{Reader: b, allow: gate}
		}
	}
	r, err := s.Open(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	gate <- 300 << 10
	if _, err := r.CopyTo(t.Context(), io.Discard, 0, 300<<10); err != nil {
		t.Fatal(err)
	}
	return r, gate
}

// rest reads the blob whole.
func rest(t *testing.T, r *Reader, content []byte) {
	t.Helper()
	var b bytes.Buffer
	if _, err := r.CopyTo(t.Context(), &b, 0, -1); err != nil || !bytes.Equal(b.Bytes(), content) {
		t.Errorf("%d bytes, %v", b.Len(), err)
	}
}

func TestALargeBlobIsFetchedOverSeveralConnectionsEachByteOnce(t *testing.T) {
	t.Parallel()
	s := newLarge(t)
	g := newRegistry(large())
	want := wantOf(g, large())
	want.Parallel = 4
	r, gate := begun(t, s, g, want)
	s.widen(want, 4)
	close(gate)
	rest(t, r, large())
	if !s.stored(t, large()) {
		t.Error("it is not stored")
	}
	var all extent.Set
	var sum int64
	for _, asked := range g.asked[1:] {
		all.Add(extent.Extent(asked))
		sum += extent.Extent(asked).Len()
	}
	if sum != all.Bytes() || g.requests() < 3 || g.mostOpen > 4 {
		t.Errorf("asked for %v, at most %d at once", g.asked, g.mostOpen)
	}
	for i, o := range g.options[1:] {
		if !o.Separate && g.mostOpen > 1 && i == 0 {
			t.Errorf("request %d is not separate: %+v", i+1, o)
		}
	}
	if extra := g.sent - int64(len(large())); extra > 2*bufferSize {
		t.Errorf("%d bytes too many came", extra)
	}
}

func TestParallelBoundsTheConnectionsAndOneIsOff(t *testing.T) {
	t.Parallel()
	for _, parallel := range []int{0, 1, 2} {
		s := newLarge(t)
		g := newRegistry(large())
		want := wantOf(g, large())
		want.Parallel = parallel
		r, gate := begun(t, s, g, want)
		s.widen(want, 16)
		close(gate)
		rest(t, r, large())
		if g.mostOpen > max(parallel, 1) || parallel < 2 && g.requests() != 1 {
			t.Errorf("parallel %d: %d requests, %d at once", parallel, g.requests(), g.mostOpen)
		}
	}
}

// An upstream that serves one connection well and others otherwise.
func TestUpstreamsThatAnswerASecondConnectionOtherwiseGetOne(t *testing.T) {
	t.Parallel()
	tooMany := errors.New("429")
	wrong := random(51, len(large()))
	for name, answer := range map[string]func(r Range, p *Part) error{
		"the whole": func(_ Range, p *Part) error {
			p.Start, p.End, p.Ranged = 0, p.Total, false
			p.Body = io.NopCloser(bytes.NewReader(large()))
			return nil
		},
		"429":          func(Range, *Part) error { return tooMany },
		"416":          func(Range, *Part) error { return &UnsatisfiableError{Size: 10} },
		"another size": func(_ Range, p *Part) error { p.Total++; return nil },
		"another ETag": func(r Range, p *Part) error {
			p.ETag = `"2"`
			p.Body = io.NopCloser(bytes.NewReader(wrong[r.Start:r.End]))
			return nil
		},
		"another range": func(_ Range, p *Part) error {
			p.Start += 10
			p.Body = io.NopCloser(bytes.NewReader(large()[p.Start:p.End]))
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newLarge(t)
			g := newRegistry(large())
			g.mirrors[0].answer = func(n int, r Range, p *Part) error {
				if p.ETag = `"1"`; n == 2 {
					return answer(r, p)
				}
				return nil
			}
			want := wantOf(g, large())
			want.Parallel = 2
			r, gate := begun(t, s, g, want)
			tr := s.widen(want, 2)
			for one := false; !one; {
				tr.mu.Lock()
				one = len(tr.conns) == 1 && tr.ramp.allowed == 1
				tr.mu.Unlock()
			}
			close(gate)
			rest(t, r, large())
			if !s.stored(t, large()) {
				t.Error("it is not stored")
			}
			if g.requests() != 2 || !s.single.has("https://one.example") {
				t.Errorf("%d requests: %v", g.requests(), g.asked)
			}
		})
	}
}

func TestAnUpstreamWithoutAFreeConnectionIsNotRestrictedForLater(t *testing.T) {
	t.Parallel()
	s := newLarge(t)
	g := newRegistry(large())
	g.mirrors[0].answer = func(n int, _ Range, _ *Part) error {
		if n == 2 {
			return ErrNoConnection
		}
		return nil
	}
	want := wantOf(g, large())
	want.Parallel = 2
	r, gate := begun(t, s, g, want)
	s.widen(want, 2)
	close(gate)
	rest(t, r, large())
	if s.single.has("https://one.example") {
		t.Error("the upstream gets one connection from now on")
	}
}

// Each of many connections breaks off, and lies, at some point.
func TestConnectionsThatBreakOffAreReplacedAndWrongPiecesShow(t *testing.T) {
	t.Parallel()
	for _, lies := range []bool{false, true} {
		s := newLarge(t)
		g := newRegistry(large())
		want := wantOf(g, large())
		want.Parallel = 4
		r, gate := begun(t, s, g, want)
		var bad atomic.Bool
		first := g.mirrors[0].body
		g.mirrors[0].body = func(n int, b io.Reader) io.Reader {
			switch {
			case n == 1:
				return first(n, b)
			case lies && n == 3:
				bad.Store(true)
				return io.MultiReader(bytes.NewReader([]byte("other bytes")), io.MultiReader(b, failing{}))
			case n%2 == 0:
				return brokenAfter(300<<10, b)
			}
			return b
		}
		s.widen(want, 4)
		close(gate)
		var b bytes.Buffer
		_, err := r.CopyTo(t.Context(), &b, 0, -1)
		if lies && bad.Load() && (!errors.Is(err, ErrMismatch) || s.stored(t, large())) {
			t.Errorf("lies: %v", err)
		}
		if !lies && (err != nil || !bytes.Equal(b.Bytes(), large()) || !s.stored(t, large())) {
			t.Errorf("breaks off: %d bytes, %v", b.Len(), err)
		}
	}
}

func TestEnginesParallelRangesMakeOneTransferOverSeveralConnections(t *testing.T) {
	t.Parallel()
	s := newLarge(t)
	g := newRegistry(large())
	var wait sync.WaitGroup
	const chunk = 700 << 10
	for start := 0; start < len(large()); start += chunk {
		end := min(start+chunk, len(large()))
		wait.Go(func() {
			got, err := take(s.Transfers, wantOf(g, large(), Range{int64(start), int64(end)}))
			if err != nil || !bytes.Equal(got, large()[start:end]) {
				t.Errorf("[%d, %d): %d bytes, %v", start, end, len(got), err)
			}
		})
	}
	wait.Wait()
	if g.sent != int64(len(large())) || g.requests() != 5 || !s.stored(t, large()) {
		t.Errorf("%d bytes in %d requests: %v", g.sent, g.requests(), g.asked)
	}
}
