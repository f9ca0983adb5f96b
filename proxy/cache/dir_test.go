package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

var alpine = Repository{"docker.io", "library/alpine"}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// putManifest stores a manifest of alpine and returns its digest.
func putManifest(t *testing.T, d *Dir, body string) digest.Digest {
	t.Helper()
	dgst := digest.FromString(body)
	h := Holding{MediaType: manifestType, Learned: Learned{Upstream: "https://registry-1.docker.io"}}
	if err := d.PutManifest(alpine, dgst, []byte(body), h); err != nil {
		t.Fatal(err)
	}
	return dgst
}

// put keeps content that was last used a while ago.
func put(t *testing.T, d *Dir, content string, ago time.Duration) digest.Digest {
	t.Helper()
	dgst, err := fetched(t, d, content, false)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-ago)
	if err := d.root.Chtimes(contentPath("blobs", dgst), at, at); err != nil {
		t.Fatal(err)
	}
	return dgst
}

func TestTheFolderCanBeReadByAPerson(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	dgst := put(t, d, "layer", 0)
	m := putManifest(t, d, "{}")
	if err := d.SetTag(alpine, "3.20", Meaning{Digest: m, MediaType: manifestType, Seen: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"VERSION": "1\n",
		"blobs/sha256/" + dgst.Encoded()[:2] + "/" + dgst.Encoded():              "layer",
		"manifests/sha256/" + m.Encoded()[:2] + "/" + m.Encoded():                "{}",
		"repositories/docker.io/library/alpine/_manifests/sha256/" + m.Encoded(): `"mediaType":"application/vnd.oci.image.manifest.v1+json"`,
		"repositories/docker.io/library/alpine/_tags/3.20":                       m.String(),
	} {
		got, err := os.ReadFile(filepath.Join(d.root.Name(), name))
		if err != nil || !strings.Contains(string(got), content) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestAnotherLayoutIsRefused(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "VERSION"), []byte("2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if d, err := Open(path, Limits{}); err == nil || !strings.Contains(err.Error(), "layout") {
		d.Close()
		t.Errorf("%v", err)
	}
}

func TestWhatIsNotItsDigestAnyMoreIsNotServed(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	m := putManifest(t, d, "{}")
	if err := d.root.WriteFile(contentPath("manifests", m), []byte("[]"), 0o644); err != nil {
		t.Fatal(err)
	}
	again, err := Open(d.root.Name(), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got, err := again.Manifest(alpine, m, false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestAManifestIsServedThroughItsRepositoryAlone(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	layer := digest.FromString("layer")
	body := []byte(`{"layers":[{"digest":"` + layer.String() + `"}]}`)
	m := putManifest(t, d, string(body))
	other := Repository{"docker.io", "library/other"}
	if _, err := d.Manifest(other, m, false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another repository has it too: %v", err)
	}
	if got, err := d.Manifest(alpine, m, false); err != nil || !bytes.Equal(got.Body, body) || got.Holdings[0].MediaType != manifestType {
		t.Errorf("%+v, %v", got, err)
	}
	if len(d.BlobHoldings(alpine, layer)) > 0 {
		t.Error("that a manifest lists a layer says that its repository holds it")
	}
}

func TestATagMayMeanAnIndexAndAManifest(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	for i, mt := range []string{"index", "manifest", "index"} {
		if err := d.SetTag(alpine, "3", Meaning{Digest: digest.FromString(strings.Repeat("x", i)), MediaType: mt, Seen: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	got := d.Tag(alpine, "3")
	if len(got) != 2 || got[0].MediaType != "index" || got[0].Digest != digest.FromString("xx") || got[1].MediaType != "manifest" {
		t.Errorf("%+v", got)
	}
}

// Manifests and records are read from outside, and what they name may be no digest.
func TestWhatIsNoDigestIsNotStored(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	known := put(t, d, "layer", 0)
	for _, dgst := range []digest.Digest{
		"", ":", "sha256", "sha256:", "sha256:2c", "sha256:../../../key",
		"md5:" + digest.Digest(known.Encoded()), known[:len(known)-1], known + "0",
	} {
		_, stored := d.Stored(dgst, false)
		_, storedManifest := d.Stored(dgst, true)
		_, blob := d.Blob(dgst, false)
		_, manifest := d.Manifest(alpine, dgst, false)
		_, _, content := d.ReadContent(dgst, false, 1)
		for _, err := range []error{stored, storedManifest, blob, manifest, content} {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%q is found: %v", dgst, err)
			}
		}
		if d.HasBlob(dgst) || d.BlobHoldings(alpine, dgst) != nil || d.Forget(alpine, KindBlob, dgst) != nil {
			t.Errorf("%q is held", dgst)
		}
		_, err := d.Holders(t.Context(), dgst, func(Record) bool {
			t.Errorf("%q has a holder", dgst)
			return true
		})
		if err != nil {
			t.Errorf("the holders of %q: %v", dgst, err)
		}
	}
}

func TestTornRecordsAreNotThere(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	dgst := digest.FromString("x")
	if err := d.SetTag(alpine, "3", Meaning{Digest: dgst}); err != nil {
		t.Fatal(err)
	}
	if err := d.HoldBlob(alpine, dgst, Learned{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"repositories/docker.io/library/alpine/_tags/3", holdingPath(alpine, "_blobs", dgst)} {
		if err := d.root.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := d.Tag(alpine, "3"); len(got) != 0 || len(d.BlobHoldings(alpine, dgst)) > 0 {
		t.Errorf("%v", got)
	}
}

func TestIdentitiesTellApartAndStayTheSame(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	again, err := Open(d.root.Name(), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	one := d.Identity("r", "user", "password")
	if one != again.Identity("r", "user", "password") {
		t.Error("another after a restart")
	}
	if one == d.Identity("r", "userp", "assword") || one == open(t, Limits{}).Identity("r", "user", "password") {
		t.Error("the same for other secrets, or in another cache")
	}
	info, err := os.Stat(filepath.Join(d.root.Name(), "KEY"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestEvictionFreesTheDiskOldestFirstAndForgets(t *testing.T) { // distribution#4957
	t.Parallel()
	d := open(t, Limits{})
	size := 100_000
	var all []digest.Digest
	for i := range 5 {
		all = append(all, put(t, d, strings.Repeat(string(rune('a'+i)), size), time.Duration(5-i)*time.Hour))
		if err := d.HoldBlob(alpine, all[i], Learned{}); err != nil {
			t.Fatal(err)
		}
	}
	reading, err := d.Blob(all[0], false) // the oldest, but it is being read
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Close()
	at := time.Now().Add(-9 * time.Hour)
	if err := d.root.Chtimes(contentPath("blobs", all[0]), at, at); err != nil {
		t.Fatal(err)
	}
	d.limits.Store(&Limits{MaxSize: int64(3*size + size/2)})
	freed, files, err := d.evict(t.Context(), nil)
	if err != nil || files != 2 || freed != int64(2*size) {
		t.Errorf("freed %d bytes in %d files, %v", freed, files, err)
	}
	for i, want := range []bool{true, false, false, true, true} {
		if d.HasBlob(all[i]) != want || (len(d.BlobHoldings(alpine, all[i])) > 0) != want {
			t.Errorf("blob %d: kept %v, held %v", i, d.HasBlob(all[i]), d.BlobHoldings(alpine, all[i]))
		}
	}
	if used := d.Used(); used != int64(3*size) {
		t.Errorf("%d bytes used", used)
	}
	if got, err := io.ReadAll(reading); err != nil || len(got) != size {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestAChangedLimitAppliesToWhatIsKept(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	put(t, d, strings.Repeat("a", 100_000), time.Hour)
	put(t, d, strings.Repeat("b", 100_000), 0)
	ctx, cancel := context.WithCancel(context.Background())
	told, done := make(chan int, 1), make(chan struct{})
	go func() {
		defer close(done)
		d.Keep(ctx, func(_ int64, files int, err error) { told <- files })
	}()
	d.SetLimits(Limits{MaxSize: 150_000})
	if files := <-told; files != 1 {
		t.Errorf("%d files removed", files)
	}
	cancel()
	<-done
}

func TestWhatHasNoRoomIsNotKept(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]Limits{
		"larger than the cache":   {MaxSize: 10},
		"the disk must stay free": {MinFreeShare: 1},
		"in bytes":                {MinFree: 1 << 60},
	} {
		d := open(t, limits)
		_, err := fetched(t, d, "more than ten bytes", false)
		if !errors.Is(err, ErrStorage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
