package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

// Range readers have connections of their own: an upstream that does not serve them must not be asked
// for ever.
func TestRangeReadersOfAnUpstreamWithoutRangesShareOneConnection(t *testing.T) {
	t.Parallel()
	for _, beginsWith := range [][]Range{nil, {{0, 10}}} {
		s := newLarge(t)
		g := newRegistry(large())
		g.mirrors[0].noRange = true
		gate := make(chan int)
		g.mirrors[0].body = func(n int, b io.Reader) io.Reader {
			if n > 1 {
				return b
			}
			return &gated{Reader: b, allow: gate}
		}
		first, err := s.Open(t.Context(), wantOf(g, large(), beginsWith...))
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		var wait sync.WaitGroup
		for i := range int64(6) {
			wait.Go(func() {
				r := Range{(i + 1) * 400 << 10, (i+1)*400<<10 + 5000}
				if got, err := take(s.Transfers, wantOf(g, large(), r)); err != nil || !bytes.Equal(got, large()[r.Start:r.End]) {
					t.Errorf("%v: %d bytes, %v", r, len(got), err)
				}
			})
		}
		for users := 0; users < 7; {
			s.mu.Lock()
			users = s.running[first.want.Digest][0].users
			s.mu.Unlock()
		}
		close(gate)
		wait.Wait()
		if g.requests() > 1+forRanges { // those that began before the first was answered
			t.Errorf("%d requests: %v", g.requests(), g.asked)
		}
	}
}

func TestShortRangesAreStoredAndFetchNoMore(t *testing.T) {
	t.Parallel()
	s := newLarge(t)
	g := newRegistry(large())
	part := Range{1000, 2000}
	for i := range 3 {
		want := wantOf(g, large(), part)
		want.Granted = i > 0
		if got, err := take(s.Transfers, want); err != nil || !bytes.Equal(got, large()[1000:2000]) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	if g.sent != 1000 || g.requests() != 1 {
		t.Errorf("%d bytes in %d requests", g.sent, g.requests())
	}
	several := []Range{{0, 100_000}, {1_000_000, 1_100_000}, {1_150_000, 1_160_000}, {-10, -1}}
	want := wantOf(g, large(), several...)
	got, err := take(s.Transfers, want)
	expected := slices.Concat(large()[:100_000], large()[1_000_000:1_100_000], large()[1_150_000:1_160_000], large()[len(large())-10:])
	if err != nil || !bytes.Equal(got, expected) {
		t.Errorf("several ranges: %d bytes, %v", len(got), err)
	}
	if g.sent > 300_000 {
		t.Errorf("%d bytes came for 210,010", g.sent)
	}
}

func TestAReaderThatReadsOnGetsALittleMore(t *testing.T) {
	t.Parallel()
	s := newLarge(t)
	g := newRegistry(large())
	for i := range int64(8) {
		r := Range{i * 64 << 10, (i + 1) * 64 << 10}
		if got, err := take(s.Transfers, wantOf(g, large(), r)); err != nil || !bytes.Equal(got, large()[r.Start:r.End]) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	s.settle()
	if g.requests() > 4 || g.sent > 8*64<<10+readAhead {
		t.Errorf("%d bytes in %d requests: %v", g.sent, g.requests(), g.asked)
	}
}

func TestNothingOfARangeIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	s := newSetUp(t, cache.Limits{})
	content := random(52, 1000)
	g := newRegistry(content)
	for _, alone := range []bool{true, false} {
		for _, ranges := range [][]Range{{{1000, -1}}, {{2000, 3000}, {1000, 1001}}} {
			want := wantOf(g, content, ranges...)
			want.Alone = alone
			var none *UnsatisfiableError
			if _, err := s.Open(t.Context(), want); !errors.As(err, &none) || none.Size != 1000 {
				t.Errorf("%v: %v", ranges, err)
			}
		}
		want := wantOf(g, content, Range{2000, 3000}, Range{10, 20})
		want.Alone = alone
		if got, err := take(s.Transfers, want); err != nil || !bytes.Equal(got, content[10:20]) {
			t.Errorf("one of two: %d bytes, %v", len(got), err)
		}
	}
}

func TestACallerIsNotToldThatTheRangeOfAnotherOneIsEmpty(t *testing.T) {
	t.Parallel()
	s := newSetUp(t, cache.Limits{})
	content := random(53, 1000)
	g := newRegistry(content)
	entered, release := make(chan struct{}, 2), make(chan struct{})
	blocking := &blockingSource{g, entered, release}
	want := wantOf(g, content, Range{2000, 3000})
	want.Source = blocking
	results, whole := make(chan error, 1), make(chan error, 1)
	go func() { _, err := take(s.Transfers, want); results <- err }()
	<-entered
	all := wantOf(g, content)
	go func() { _, err := take(s.Transfers, all); whole <- err }()
	for users := 0; users < 2; {
		s.mu.Lock()
		users = s.running[want.Digest][0].users
		s.mu.Unlock()
	}
	close(release)
	var none *UnsatisfiableError
	if err := <-results; !errors.As(err, &none) {
		t.Errorf("the range: %v", err)
	}
	if err := <-whole; err != nil {
		t.Errorf("the whole: %v", err)
	}
}

// blockingSource waits before it asks.
type blockingSource struct {
	*registry
	entered, release chan struct{}
}

func (b *blockingSource) Open(ctx context.Context, r Range, o Options) (Part, error) {
	b.entered <- struct{}{}
	<-b.release
	return b.registry.Open(ctx, r, o)
}

func TestAtMostSoManyRangesAreStoredAndThoseAreFetchedOnce(t *testing.T) {
	t.Parallel()
	s := newLarge(t)
	g := newRegistry(large())
	const stored, more = 8192 - 64, 200
	want := wantOf(g, large())
	want.Granted = true
	read := func(s *Transfers, i int64) {
		t.Helper()
		want.Ranges = []Range{{100 * i, 100*i + 1}}
		if got, err := take(s, want); err != nil || !bytes.Equal(got, large()[100*i:100*i+1]) {
			t.Fatalf("range %d: %d bytes, %v", i, len(got), err)
		}
	}
	for i := range int64(stored + more) {
		read(s.Transfers, i)
	}
	if got := g.requests(); got < stored+more || got > stored+2*more {
		t.Errorf("%d requests for %d ranges", got, stored+more)
	}
	before := g.requests()
	for i := range int64(stored) {
		read(s.Transfers, i)
	}
	if got := g.requests(); got != before {
		t.Errorf("%d requests for ranges that are stored", got-before)
	}
	s.Close()
	again := New(s.dir)
	defer again.Close()
	for i := range int64(stored) {
		read(again, i)
	}
	if got := g.requests(); got != before {
		t.Errorf("%d requests for ranges that were stored by another process", got-before)
	}
}
