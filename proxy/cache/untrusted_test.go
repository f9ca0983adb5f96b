package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// fetched stores content on behalf of a caller and returns its digest.
func fetched(t *testing.T, d *Dir, content string, untrusted bool) (digest.Digest, error) {
	t.Helper()
	var opened atomic.Int32
	dgst := digest.FromString(content)
	_, err := take(d, Want{Digest: dgst, By: "a", Untrusted: untrusted}, plain([]byte(content), &opened), 0, -1)
	d.running.Wait()
	return dgst, err
}

// eventuallyFetched is fetched, as often as it takes until there is room. Keep must run.
func eventuallyFetched(t *testing.T, d *Dir, content string, untrusted bool) digest.Digest {
	t.Helper()
	for {
		dgst, err := fetched(t, d, content, untrusted)
		if err == nil {
			return dgst
		}
		if !errors.Is(err, errNoRoom) {
			t.Fatal(err)
		}
	}
}

// keep runs Keep until the test ends.
func keep(t *testing.T, d *Dir) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Keep(ctx, func(_ int64, _ int, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// storedUntrusted returns how many bytes of files are there for untrusted callers alone.
func storedUntrusted(t *testing.T, d *Dir) (n int64) {
	t.Helper()
	err := d.Walk(t.Context(), func(c Content) error {
		if c.Untrusted {
			n += c.Size
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func block(c string) string { return strings.Repeat(c, 10_000) }

func TestUntrustedCallersHaveATenthOfTheCacheAndEvictOnlyTheirOwn(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{MaxSize: 200_000})
	keep(t, d)
	engines, err := fetched(t, d, block("e"), false)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-48 * time.Hour) // used longest ago of all
	if err := d.root.Chtimes(contentPath("blobs", engines), at, at); err != nil {
		t.Fatal(err)
	}
	var last digest.Digest
	for i := range 20 {
		last = eventuallyFetched(t, d, block(string(rune('a'+i))+"!"), true)
		if n := storedUntrusted(t, d); n > 20_000 {
			t.Fatalf("after %d fills untrusted callers have %d bytes stored", i+1, n)
		}
	}
	if !d.HasBlob(engines) || !d.HasBlob(last) {
		t.Errorf("the engines' blob is stored: %v; the latest one: %v", d.HasBlob(engines), d.HasBlob(last))
	}
	if _, err := fetched(t, d, strings.Repeat("x", 30_000), true); !errors.Is(err, ErrStorage) {
		t.Errorf("a blob larger than the share: %v", err)
	}
	if _, err := fetched(t, d, strings.Repeat("x", 30_000), false); err != nil {
		t.Errorf("the same blob for an engine: %v", err)
	}
}

func TestWhatUntrustedCallersHadFetchedGoesFirst(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{MaxSize: 1_000_000})
	guest, err := fetched(t, d, block("g"), true)
	if err != nil {
		t.Fatal(err)
	}
	engines, err := fetched(t, d, block("e"), false)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Hour)
	if err := d.root.Chtimes(contentPath("blobs", engines), at, at); err != nil {
		t.Fatal(err)
	}
	d.limits.Store(&Limits{MaxSize: 15_000})
	if _, files, err := d.evict(t.Context(), nil); err != nil || files != 1 {
		t.Errorf("%d files removed, %v", files, err)
	}
	if d.HasBlob(guest) || !d.HasBlob(engines) {
		t.Error("the engines' blob went before the untrusted caller's")
	}
}

func TestWhatATrustedCallerAsksForIsItsOwnFromThenOn(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(*Dir, digest.Digest) error{
		"a blob that is stored": func(d *Dir, dgst digest.Digest) error {
			b, err := d.Blob(dgst, false)
			if err != nil {
				return err
			}
			return b.Close()
		},
	} {
		d := open(t, Limits{MaxSize: 1_000_000})
		dgst, err := fetched(t, d, block("g"), true)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := d.Blob(dgst, true); err != nil {
			t.Fatal(err)
		} else if b.Close(); d.space.usedUntrusted != 10_000 {
			t.Errorf("%s: an untrusted caller's use makes it trusted", name)
		}
		if err := use(d, dgst); err != nil {
			t.Fatal(err)
		}
		if n := d.space.usedUntrusted; n != 0 {
			t.Errorf("%s: %d bytes are still in the untrusted callers' share", name, n)
		}
		if n := storedUntrusted(t, d); n != 0 {
			t.Errorf("%s: %d bytes of files are", name, n)
		}
		if err := d.survey(t.Context(), nil); err != nil || d.space.usedUntrusted != 0 {
			t.Errorf("%s: after a survey %d bytes are, %v", name, d.space.usedUntrusted, err)
		}
	}
}

func TestABlobThatATrustedCallerJoinsIsItsOwn(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{MaxSize: 1_000_000})
	content := block("j")
	release := make(chan struct{})
	src := func(context.Context, int64) (Part, error) {
		<-release
		return Part{Body: io.NopCloser(strings.NewReader(content)), Total: int64(len(content))}, nil
	}
	want := Want{Digest: digest.FromString(content), By: "anonymous", Untrusted: true}
	results := make(chan error, 2)
	go func() { _, err := take(d, want, src, 0, -1); results <- err }()
	for !d.Filling(want.Digest) {
		time.Sleep(time.Millisecond)
	}
	want.Untrusted = false
	go func() { _, err := take(d, want, src, 0, -1); results <- err }()
	for joined := false; !joined; {
		d.mu.Lock()
		f := d.fills[want.Digest]
		joined = f != nil && f.trusted.Load()
		d.mu.Unlock()
	}
	close(release)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	d.running.Wait()
	if c, err := d.Stored(want.Digest, false); err != nil || c.Untrusted {
		t.Errorf("%+v, %v", c, err)
	}
}

// An untrusted caller begins to fetch what it has no room for, and an engine joins.
func TestAnEngineIsNotBoundByTheShareOfTheCallerThatItJoins(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{MaxSize: 100_000})
	content := strings.Repeat("x", 30_000) // more than a tenth
	release := make(chan struct{})
	src := func(context.Context, int64) (Part, error) {
		<-release
		return Part{Body: io.NopCloser(strings.NewReader(content)), Total: int64(len(content))}, nil
	}
	want := Want{Digest: digest.FromString(content), By: "anonymous", Untrusted: true}
	untrusted, engine := make(chan error, 1), make(chan error, 1)
	go func() { _, err := take(d, want, src, 0, -1); untrusted <- err }()
	for !d.Filling(want.Digest) {
		time.Sleep(time.Millisecond)
	}
	trusted := want
	trusted.Untrusted = false
	go func() { _, err := take(d, trusted, src, 0, -1); engine <- err }()
	close(release)
	if err := <-engine; err != nil {
		t.Errorf("the engine: %v", err)
	}
	if err := <-untrusted; err != nil && !errors.Is(err, ErrStorage) {
		t.Errorf("the untrusted caller: %v", err)
	}
	d.running.Wait()
	if !d.HasBlob(want.Digest) {
		t.Error("the engine's blob is not stored")
	}
}

func TestUntrustedCallersFetchABoundedNumberOfBlobsAtATime(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	release := make(chan struct{})
	results := make(chan error, maxUntrustedFills)
	slow := func(content string) Source {
		return func(context.Context, int64) (Part, error) {
			<-release
			return Part{Body: io.NopCloser(strings.NewReader(content)), Total: int64(len(content))}, nil
		}
	}
	for i := range maxUntrustedFills {
		content := fmt.Sprint("slow ", i)
		go func() {
			_, err := take(d, Want{Digest: digest.FromString(content), By: "a", Untrusted: true}, slow(content), 0, -1)
			results <- err
		}()
	}
	for n := 0; n < maxUntrustedFills; {
		d.mu.Lock()
		n = d.untrustedFills
		d.mu.Unlock()
	}
	if _, err := d.Fill(t.Context(), Want{Digest: digest.FromString("more"), By: "a", Untrusted: true}, slow("more")); !errors.Is(err, ErrBusy) {
		t.Errorf("one more: %v", err)
	}
	engine := make(chan error, 1)
	go func() {
		_, err := take(d, Want{Digest: digest.FromString("engine"), By: "b"}, slow("engine"), 0, -1)
		engine <- err
	}()
	close(release)
	for range maxUntrustedFills {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if err := <-engine; err != nil {
		t.Errorf("an engine has to wait for untrusted callers: %v", err)
	}
	d.running.Wait()
	if d.untrustedFills != 0 || d.space.reservedUntrusted != 0 {
		t.Errorf("afterwards %d fills and %d bytes are still counted", d.untrustedFills, d.space.reservedUntrusted)
	}
}

func TestABlobOfUnknownLengthCannotFillTheDisk(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limits    Limits
		untrusted bool
		most      int64
	}{
		"max_size":          {Limits{MaxSize: 4 << 20}, false, 4 << 20},
		"an untrusted part": {Limits{MaxSize: 40 << 20}, true, 4 << 20},
		"min_free":          {Limits{MinFree: 1 << 60}, false, 0},
	} {
		d := open(t, c.limits)
		var sent atomic.Int64
		endless := func(context.Context, int64) (Part, error) {
			return Part{Body: io.NopCloser(&zeros{&sent}), Total: -1}, nil
		}
		_, err := take(d, Want{Digest: digest.FromString(name), By: "a", Untrusted: c.untrusted}, endless, 0, -1)
		if !errors.Is(err, ErrStorage) {
			t.Errorf("%s: %v", name, err)
		}
		if n := sent.Load(); n > c.most+fillBuffer {
			t.Errorf("%s: %d bytes were written", name, n)
		}
	}
}

// zeros is a body that never ends.
type zeros struct{ sent *atomic.Int64 }

func (z *zeros) Read(p []byte) (int, error) {
	clear(p)
	z.sent.Add(int64(len(p)))
	return len(p), nil
}
