package inventory_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/cache/inventory"
)

func TestVerifyRemovesWhatIsWrongAndNothingElse(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	m := f.image(app, "1", linuxAMD64, "base", "flipped", "short", "long")
	f.image(other, "1", linuxAMD64, "base")
	for content, now := range map[string]string{"flipped": "Flipped", "short": "shor", "long": "longer"} {
		if err := os.WriteFile(contentFile(f.path, "blobs", digest.FromString(content)), []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const torn = "repositories/ghcr.io/acme/app/_tags/torn"
	if err := os.WriteFile(filepath.Join(f.path, torn), []byte(`[{"dig`), 0o644); err != nil {
		t.Fatal(err)
	}
	var done, total int64
	v, err := inventory.Verify(t.Context(), f.Dir, func(d, all int64) { done, total = d, all })
	if err != nil {
		t.Fatal(err)
	}
	var wrong []string
	for _, w := range v.Wrong {
		wrong = append(wrong, filepath.Base(w.Path))
	}
	want := []string{"torn", digest.FromString("flipped").Encoded(), digest.FromString("short").Encoded(), digest.FromString("long").Encoded()}
	slices.Sort(wrong)
	slices.Sort(want)
	if !slices.Equal(wrong, want) || v.Files != 7 || done != total || v.Bytes != total || total == 0 {
		t.Errorf("wrong are %v; %d files, %d of %d bytes", wrong, v.Files, done, total)
	}
	for content, want := range map[string]bool{"base": true, linuxAMD64: true, "flipped": false, "short": false, "long": false} {
		dgst := digest.FromString(content)
		if f.HasBlob(dgst) != want || holdsBlob(f.Dir, app, dgst) != want {
			t.Errorf("%s is kept %v, held %v", content, f.HasBlob(dgst), holdsBlob(f.Dir, app, dgst))
		}
	}
	if _, err := f.Manifest(app, m, false); err != nil || len(f.Tag(app, "1")) != 1 {
		t.Errorf("the image's names are gone: %v", err)
	}
	if again, err := inventory.Verify(t.Context(), f.Dir, nil); err != nil || len(again.Wrong) != 0 {
		t.Errorf("a second time it finds %v, %v", again.Wrong, err)
	}
}

func TestVerifyCountsAsNoUse(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	m := f.image(app, "1", linuxAMD64, "base")
	f.used(m, 1e15)
	before := f.inventory().Images[0].Used
	if _, err := inventory.Verify(t.Context(), f.Dir, nil); err != nil {
		t.Fatal(err)
	}
	if after := f.inventory().Images[0].Used; !after.Equal(before) {
		t.Errorf("used %v, before %v", after, before)
	}
}

func TestVerifyCanBeStopped(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	f.blob(strings.Repeat("x", 1<<20))
	f.blob(strings.Repeat("y", 1<<20))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := inventory.Verify(ctx, f.Dir, func(int64, int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if !f.HasBlob(digest.FromString(strings.Repeat("x", 1<<20))) || !f.HasBlob(digest.FromString(strings.Repeat("y", 1<<20))) {
		t.Error("what was not read to its end was taken for wrong")
	}
}
