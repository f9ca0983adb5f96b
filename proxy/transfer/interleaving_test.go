package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sidemirror/sidemirror/internal/extent"
	"github.com/sidemirror/sidemirror/proxy/cache"
)

// dice are safe for concurrent use.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (d *dice) intN(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

// faulty makes a mirror whose first answers break off, begin anew, and if evil lie.
func (d *dice) faulty(name string, content []byte, evil bool) *mirror {
	var faults atomic.Int32
	faults.Store(int32(d.intN(6)))
	m := &mirror{name: name, content: content, chunked: d.intN(5) == 0, noRange: d.intN(4) == 0}
	m.body = func(_ int, b io.Reader) io.Reader {
		if faults.Add(-1) < 0 {
			return b
		}
		all, err := io.ReadAll(b)
		if err != nil || len(all) == 0 {
			return bytes.NewReader(all)
		}
		switch d.intN(4) {
		case 0:
			return brokenAfter(int64(d.intN(len(all))), bytes.NewReader(all))
		case 1:
			if evil {
				all = bytes.Clone(all)
				all[d.intN(len(all))] ^= 1
			}
		}
		return bytes.NewReader(all)
	}
	return m
}

// leaver is a client that goes away.
type leaver struct {
	io.Writer
	after int
}

func (l *leaver) Write(b []byte) (int, error) {
	if l.after -= len(b); l.after < 0 {
		return 0, errors.New("gone")
	}
	return l.Writer.Write(b)
}

// Whatever clients come, go, and ask for, over however many connections, and however the upstreams
// break off, lie and begin anew: every client has the exact bytes or an error, and what is stored is
// right. Ranges of a blob that is not verified are as right as the upstream is.
func TestAnyInterleavingGivesExactBytesOrAnError(t *testing.T) {
	t.Parallel()
	clean := 0
	const rounds = 60
	for round := range rounds {
		d := &dice{r: rand.New(rand.NewPCG(uint64(round), 4))}
		s := newLarge(t)
		s.sizes = sizes{many: 64 << 10, piece: 64 << 10, mostPiece: 128 << 10, lastPiece: 4 << 10, nearby: 16 << 10}
		content := random(uint64(60+round), 1+d.intN(1<<20))
		size := int64(len(content))
		evil := d.intN(3) == 0
		g := &registry{mirrors: []*mirror{d.faulty("https://one.example", content, evil), d.faulty("https://two.example", content, evil)}}
		var wait sync.WaitGroup
		var whole atomic.Int32
		for range 8 {
			var ranges []Range
			if d.intN(2) == 0 {
				for range 1 + d.intN(3) {
					start := int64(d.intN(int(size)))
					ranges = append(ranges, Range{start, start + 1 + int64(d.intN(int(size-start)))})
				}
			}
			want := wantOf(g, content, ranges...)
			want.Parallel, want.Alone, want.Granted = 1+d.intN(4), d.intN(6) == 0, d.intN(2) == 0
			leaves := d.intN(4) == 0
			wait.Go(func() {
				if s.visit(t, want, content, leaves, evil, d) {
					whole.Add(1)
				}
			})
		}
		wait.Wait()
		s.stored(t, content)
		clean += int(whole.Load())
		s.Close()
	}
	if clean < 2*rounds {
		t.Errorf("only %d reads of %d rounds were whole", clean, rounds)
	}
}

// visit reads as one client does, and reports whether it got everything.
func (s *setUp) visit(t *testing.T, want Want, content []byte, leaves, evil bool, d *dice) bool {
	r, err := s.Open(context.Background(), want)
	if err != nil {
		return false
	}
	defer r.Close()
	if d.intN(3) == 0 {
		s.mu.Lock()
		running := len(s.running[want.Digest]) > 0
		s.mu.Unlock()
		if running && r.t != nil {
			r.t.mu.Lock()
			r.t.ramp.allowed = r.t.ramp.most
			r.t.schedule()
			r.t.mu.Unlock()
		}
	}
	parts := []extent.Extent{{Start: 0, End: -1}}
	if len(want.Ranges) > 0 && r.Size >= 0 {
		parts, _ = resolve(want.Ranges, r.Size)
	}
	for _, e := range parts {
		var b bytes.Buffer
		var w io.Writer = &b
		if leaves {
			w = &leaver{Writer: &b, after: 1 << 16}
		}
		if _, err := r.CopyTo(context.Background(), w, e.Start, e.End); err != nil {
			return false
		}
		end := e.End
		if end < 0 {
			end = int64(len(content))
		}
		isWhole := e.Start == 0 && end == int64(len(content))
		if !bytes.Equal(b.Bytes(), content[e.Start:end]) && (isWhole || !evil) {
			t.Errorf("a clean end with wrong bytes: %d of %v", b.Len(), e)
		}
	}
	return true
}

// A disk that fails in the middle: the reader goes on past the cache.
func TestAFailureOfTheCacheInTheMiddleBreaksNoPull(t *testing.T) {
	t.Parallel()
	for name, noRange := range map[string]bool{"an upstream with ranges": false, "an upstream without": true} {
		s := newLarge(t)
		g := newRegistry(large())
		g.mirrors[0].noRange = noRange
		want := wantOf(g, large())
		r, gate := begun(t, s, g, want)
		half := r.sent.Bytes()
		r.t.fail(cache.ErrStorage)
		close(gate)
		var b bytes.Buffer
		if _, err := r.CopyTo(t.Context(), &b, half, -1); err != nil || !bytes.Equal(b.Bytes(), large()[half:]) {
			t.Errorf("%s: the rest: %d bytes, %v", name, b.Len(), err)
		}
		if ok, err := r.Stored(); ok || !errors.Is(err, cache.ErrStorage) {
			t.Errorf("%s: stored is %v, %v", name, ok, err)
		}
	}
}

// A connection that brings nothing is joined by another one.
func TestAStalledConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	s := newLarge(t)
	g := newRegistry(large())
	r, gate := begun(t, s, g, wantOf(g, large()))
	r.t.mu.Lock()
	r.t.conns[0].latest = r.t.conns[0].latest.Add(-2 * stallTime)
	r.t.mu.Unlock()
	rest(t, r, large()) // the gate is still closed
	close(gate)
	if g.requests() != 2 || !s.stored(t, large()) {
		t.Errorf("%d requests: %v", g.requests(), g.asked)
	}
}

func TestAStreamHoldsOneConnectionAndOneBuffer(t *testing.T) {
	t.Parallel()
	s := New(nil)
	defer s.Close()
	g := newRegistry(large())
	want := wantOf(g, large())
	want.Parallel = 8
	longest := 0
	r, err := s.Open(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n, err := r.CopyTo(t.Context(), writerFunc(func(b []byte) (int, error) {
		longest = max(longest, len(b))
		return len(b), nil
	}), 0, -1)
	if err != nil || n != int64(len(large())) || g.requests() != 1 || g.mostOpen != 1 || longest > streamBuffer {
		t.Errorf("%d bytes, %v, in %d requests, %d at a time", n, err, g.requests(), longest)
	}
}
