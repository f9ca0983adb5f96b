package transfer

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

func TestUntrustedCallersFetchABoundedNumberOfBlobsAtATime(t *testing.T) {
	t.Parallel()
	s := newSetUp(t, cache.Limits{})
	gate := make(chan int)
	var readers []*Reader
	for i := range maxUntrusted {
		content := random(uint64(20+i), 1000)
		g := newRegistry(content)
		g.mirrors[0].body = func(_ int, b io.Reader) io.Reader { return &gated{Reader: b, allow: gate} }
		want := wantOf(g, content)
		want.Untrusted = true
		r, err := s.Open(t.Context(), want)
		if err != nil {
			t.Fatal(err)
		}
		readers = append(readers, r)
	}
	more := random(40, 1000)
	want := wantOf(newRegistry(more), more)
	want.Untrusted = true
	if got, err := take(s.Transfers, want); err != nil || !bytes.Equal(got, more) || s.dir.HasBlob(want.Digest) {
		t.Errorf("one more: %d bytes, %v; it is stored, or not whole", len(got), err)
	}
	engines := random(41, 1000)
	if _, err := take(s.Transfers, wantOf(newRegistry(engines), engines)); err != nil {
		t.Errorf("an engine: %v", err)
	}
	close(gate)
	for _, r := range readers {
		if _, err := r.CopyTo(t.Context(), io.Discard, 0, -1); err != nil {
			t.Error(err)
		}
		r.Close()
	}
	s.settle()
	if !s.stored(t, engines) || s.untrusted != 0 {
		t.Errorf("afterwards %d are still counted, or the engine's blob is not stored", s.untrusted)
	}
}

func TestABlobThatATrustedCallerJoinsIsItsOwn(t *testing.T) {
	t.Parallel()
	s := newSetUp(t, cache.Limits{MaxSize: 1_000_000})
	content := random(42, 10_000)
	g := newRegistry(content)
	gate := make(chan int)
	g.mirrors[0].body = func(_ int, b io.Reader) io.Reader { return &gated{Reader: b, allow: gate} }
	want := wantOf(g, content)
	want.Untrusted = true
	guest, err := s.Open(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	want.Untrusted = false
	engine, err := s.Open(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	close(gate)
	if _, err := engine.CopyTo(t.Context(), io.Discard, 0, -1); err != nil {
		t.Error(err)
	}
	s.settle()
	if c, err := s.dir.Stored(want.Digest, false); err != nil || c.Untrusted {
		t.Errorf("%+v, %v", c, err)
	}
}

// An untrusted caller begins to fetch what it has no room for, and an engine joins.
func TestAnEngineIsNotBoundByTheShareOfTheCallerThatItJoins(t *testing.T) {
	t.Parallel()
	s := newSetUp(t, cache.Limits{MaxSize: 100_000})
	content := random(43, 30_000) // more than a tenth
	g := newRegistry(content)
	entered, release := make(chan struct{}, 9), make(chan struct{})
	g.mirrors[0].answer = func(int, Range, *Part) error {
		entered <- struct{}{}
		<-release
		return nil
	}
	guest, engine := make(chan error, 1), make(chan error, 1)
	want := wantOf(g, content)
	want.Untrusted = true
	go func() { _, err := take(s.Transfers, want); guest <- err }()
	<-entered
	trusted := want
	trusted.Untrusted = false
	go func() { _, err := take(s.Transfers, trusted); engine <- err }()
	close(release)
	if err := <-engine; err != nil {
		t.Errorf("the engine: %v", err)
	}
	if err := <-guest; err != nil && !errors.Is(err, ErrStored) {
		t.Errorf("the untrusted caller: %v", err)
	}
	if !s.stored(t, content) {
		t.Error("the engine's blob is not stored")
	}
}
