package cache

import (
	"fmt"
	"io/fs"
	"path"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// recordFiles counts the files below repositories, and the folders.
func recordFiles(t *testing.T, d *Dir) (files, folders int) {
	t.Helper()
	err := fs.WalkDir(d.root.FS(), "repositories", func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			folders++
		} else if err == nil {
			files++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, folders - 1
}

// age makes a record look as if it had been written so long ago.
func age(t *testing.T, d *Dir, match func(Record) bool, by time.Duration) {
	t.Helper()
	at := time.Now().Add(-by)
	err := d.Records(t.Context(), func(r Record) error {
		if !match(r) {
			return nil
		}
		return d.root.Chtimes(r.Path, at, at)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func anyRecord(Record) bool { return true }

func TestListsOfARepositoryAreBounded(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	for i := range 10 * maxLists {
		if err := d.SetAnswer(alpine, fmt.Sprint("page ", i), Answer{Body: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	if files, _ := recordFiles(t, d); files != maxLists {
		t.Errorf("%d lists are stored", files)
	}
	if _, err := d.Answer(alpine, fmt.Sprint("page ", 10*maxLists-1)); err != nil {
		t.Errorf("the latest one is not: %v", err)
	}
}

func TestAChangedLoginLeavesNoFileInEachRepository(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	for i := range 60 {
		if err := d.Grant(alpine, "https://registry-1.docker.io", d.Identity("user", fmt.Sprint(i)), time.Now(), false); err != nil {
			t.Fatal(err)
		}
	}
	if files, _ := recordFiles(t, d); files != 1 {
		t.Errorf("60 logins have left %d files", files)
	}
	if d.Granted(alpine, "https://registry-1.docker.io", d.Identity("user", "59")).IsZero() {
		t.Error("the latest grant is not on record")
	}
	if n := len(d.readGrants(alpine)); n > maxGranted {
		t.Errorf("%d grants are on record", n)
	}
}

// Found in an attack: 100,000 inodes in 11 seconds, by requests for lists, tags and blobs that are never pulled.
func TestRecordsOfUntrustedCallersAreBounded(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{MaxSize: 1 << 20})
	_, share := d.recordLimit()
	full := false
	for i := range 5000 {
		r := Repository{"docker.io", fmt.Sprint("library/r", i)}
		learned := Learned{Upstream: "https://registry-1.docker.io", By: "anonymous", Since: time.Now(), Untrusted: true}
		for _, err := range []error{
			d.Grant(r, learned.Upstream, learned.By, time.Now(), true),
			d.SetAnswer(r, "page", Answer{Body: []byte("{}"), Learned: learned}),
			d.SetTag(r, "latest", Meaning{Digest: digest.FromString("x"), Learned: learned}),
			d.HoldBlob(r, digest.FromString("x"), learned),
		} {
			full = full || err != nil
		}
	}
	if !full {
		t.Error("nothing was turned down")
	}
	if files, folders := recordFiles(t, d); int64(files) > share || folders > 8*int(share) {
		t.Errorf("%d files and %d folders, of a share of %d blocks", files, folders, share)
	}
	// Engines still have room.
	if err := d.SetTag(alpine, "3.20", Meaning{Digest: digest.FromString("y")}); err != nil {
		t.Errorf("an engine's record: %v", err)
	}
	// And untrusted callers do too, after a sweep.
	if err := d.sweepRecords(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := d.SetTag(Repository{"docker.io", "library/new"}, "1", Meaning{Digest: digest.FromString("z"), Learned: Learned{Untrusted: true}}); err != nil {
		t.Errorf("after a sweep: %v", err)
	}
}

func TestRecordsAboutNothingStoredGoWithTheirRepository(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{MaxAge: 7 * 24 * time.Hour})
	dgst := put(t, d, "layer", 0)
	m := putManifest(t, d, "{}")
	gone := Repository{"docker.io", "library/gone"}
	for _, r := range []Repository{alpine, gone} {
		held, meant := dgst, m
		if r == gone {
			held, meant = digest.FromString("evicted"), digest.FromString("evicted too")
		}
		for _, err := range []error{
			d.HoldBlob(r, held, Learned{}),
			d.SetTag(r, "1", Meaning{Digest: meant}),
			d.Grant(r, "u", "anonymous", time.Now(), false),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := d.sweepRecords(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if files, _ := recordFiles(t, d); files != 7 {
		t.Errorf("%d of 7 new records are left: a pull that is under way has lost some", files)
	}
	age(t, d, anyRecord, 2*time.Hour)
	if err := d.sweepRecords(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.root.Stat(gone.folder()); err == nil {
		t.Error("a repository of which nothing is stored is still there")
	}
	if len(d.BlobHoldings(alpine, dgst)) == 0 || len(d.Tag(alpine, "1")) == 0 || d.Granted(alpine, "u", "anonymous").IsZero() {
		t.Error("records about stored content went too")
	}
}

// An editor, a backup or a file system that was repaired leaves files of other names.
func TestASweepPassesFilesThatAreNoRecords(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	dgst := put(t, d, "layer", 0)
	if err := d.HoldBlob(alpine, dgst, Learned{}); err != nil {
		t.Fatal(err)
	}
	held := holdingPath(alpine, KindBlob, dgst)
	for _, name := range []string{
		held + "~", held[:len(held)-1], path.Dir(held) + "/x",
		alpine.folder() + "/_blobs/x", alpine.folder() + "/_tags", alpine.folder() + "/_other",
	} {
		if err := d.root.WriteFile(name, []byte("x"), fileMode); err != nil {
			t.Fatal(err)
		}
	}
	for _, by := range []time.Duration{0, 2 * spareTime} {
		age(t, d, anyRecord, by)
		if err := d.sweepRecords(t.Context(), nil); err != nil {
			t.Errorf("after %v: %v", by, err)
		}
	}
	if len(d.BlobHoldings(alpine, dgst)) == 0 {
		t.Error("a record went with the others")
	}
	if _, err := d.root.Stat(held + "~"); err == nil {
		t.Error("a file that is no record stays for ever")
	}
}

func TestListsAndGrantsEndWithMaxAge(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{MaxAge: 7 * 24 * time.Hour})
	dgst := put(t, d, "layer", 0)
	for _, err := range []error{
		d.HoldBlob(alpine, dgst, Learned{}),
		d.SetAnswer(alpine, "page", Answer{Body: []byte("{}")}),
		d.Grant(alpine, "u", "anonymous", time.Now(), false),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	age(t, d, anyRecord, 6*24*time.Hour)
	if err := d.sweepRecords(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if files, _ := recordFiles(t, d); files != 3 {
		t.Errorf("after six days %d of 3 records are left", files)
	}
	age(t, d, anyRecord, 8*24*time.Hour)
	if err := d.sweepRecords(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if files, _ := recordFiles(t, d); files != 1 || len(d.BlobHoldings(alpine, dgst)) == 0 {
		t.Errorf("after eight days %d records are left", files)
	}
}

func TestTooManyRecordsLoseTheLeastUsefulFirst(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{MaxSize: 1 << 20})
	dgst := put(t, d, "layer", 0)
	if err := d.HoldBlob(alpine, dgst, Learned{}); err != nil {
		t.Fatal(err)
	}
	age(t, d, anyRecord, 24*time.Hour) // older than all others
	limit, _ := d.recordLimit()
	for i := int64(0); ; i++ {
		if err := d.HoldBlob(alpine, digest.FromString(fmt.Sprint(i)), Learned{}); err != nil {
			break
		}
		if i > limit {
			t.Fatal("records have no bound")
		}
	}
	if err := d.sweepRecords(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if n := d.space.records; n > limit || n < limit/2 {
		t.Errorf("%d blocks are left of at most %d", n, limit)
	}
	if len(d.BlobHoldings(alpine, dgst)) == 0 {
		t.Error("the record about stored content went")
	}
}

func TestARecordOfTrustedCallersStaysTheirs(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	write := func(untrusted bool) {
		t.Helper()
		m := Meaning{Digest: digest.FromString("x"), Seen: time.Now(), Learned: Learned{Untrusted: untrusted}}
		if err := d.SetTag(alpine, "1", m); err != nil {
			t.Fatal(err)
		}
	}
	marked := func() bool {
		info, err := d.root.Stat(tagPath(alpine, "1"))
		if err != nil {
			t.Fatal(err)
		}
		return isUntrusted(info)
	}
	if write(true); !marked() {
		t.Error("an untrusted caller's record is not marked")
	}
	if write(false); marked() {
		t.Error("a trusted caller's record is marked")
	}
	if write(true); marked() {
		t.Error("an untrusted caller has taken over a trusted one's record")
	}
}
