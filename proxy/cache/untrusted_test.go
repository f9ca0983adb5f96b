package cache

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/internal/extent"
)

// fetched stores content on behalf of a caller and returns its digest.
func fetched(t *testing.T, d *Dir, content string, untrusted bool) (digest.Digest, error) {
	t.Helper()
	dgst := digest.FromString(content)
	size := int64(len(content))
	p, err := d.CreatePartial(dgst, "https://upstream.example", size, untrusted)
	if err != nil {
		return dgst, err
	}
	if err = p.Reserve(t.Context(), extent.Extent{Start: 0, End: size}); err == nil {
		err = p.WriteAt(t.Context(), []byte(content), 0)
	}
	if err != nil {
		p.Discard()
		return dgst, err
	}
	return dgst, p.Commit()
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
		p, err := d.CreatePartial(digest.FromString(name), "https://upstream.example", -1, c.untrusted)
		if errors.Is(err, ErrStorage) && c.most == 0 {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var written int64
		for chunk := make([]byte, 64<<10); err == nil; written += int64(len(chunk)) {
			if err = p.WriteAt(t.Context(), chunk, written); written > c.most {
				t.Fatalf("%s: %d bytes were written", name, written)
			}
		}
		if !errors.Is(err, ErrStorage) {
			t.Errorf("%s: %v", name, err)
		}
		p.Discard()
		if d.space.reserved != 0 || d.space.reservedUntrusted != 0 || d.space.unwritten != 0 {
			t.Errorf("%s: afterwards %d, %d and %d bytes are still reserved", name, d.space.reserved, d.space.reservedUntrusted, d.space.unwritten)
		}
	}
}
