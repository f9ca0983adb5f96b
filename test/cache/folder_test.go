package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/test/quirky"
)

// content lists what is kept in a cache folder, by digest with the path, and fails
// the test for each file that is not what its name says. Files in seen, by path, were
// looked at before and have not changed since; it may be nil.
func content(t *testing.T, folder string, seen map[string]time.Time) map[digest.Digest]string {
	t.Helper()
	found := map[digest.Digest]string{}
	for _, kind := range []string{"blobs", "manifests"} {
		walk(t, filepath.Join(folder, kind), func(path string, info fs.FileInfo) {
			hex := filepath.Base(path)
			algorithm := digest.Algorithm(filepath.Base(filepath.Dir(filepath.Dir(path))))
			if !algorithm.Available() || filepath.Base(filepath.Dir(path)) != hex[:2] {
				t.Errorf("%s is not where content belongs", path)
				return
			}
			want := digest.NewDigestFromEncoded(algorithm, hex)
			found[want] = path
			if seen[path].Equal(info.ModTime()) {
				return
			}
			file, err := os.Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer file.Close()
			if got, err := algorithm.FromReader(file); err != nil || got != want {
				t.Errorf("%s holds %d bytes of %s (%v)", path, info.Size(), got, err)
			}
			if seen != nil {
				seen[path] = info.ModTime()
			}
		})
	}
	return found
}

// walk calls visit for every file below folder. What disappears meanwhile is passed over.
func walk(t *testing.T, folder string, visit func(path string, info fs.FileInfo)) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		if info, err := e.Info(); err == nil {
			visit(path, info)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// has reports whether the folder holds a digest, and checks all that is there.
func (r *rig) has(d digest.Digest) bool {
	r.t.Helper()
	return content(r.t, r.folder, nil)[d] != ""
}

// keeps waits until every blob of an image is in the folder: that is a little after
// the last byte of it went out.
func (r *rig) keeps(blobs ...quirky.Blob) {
	r.t.Helper()
	r.Eventually("the blobs are in the folder", func() bool {
		found := content(r.t, r.folder, nil)
		for _, b := range blobs {
			if found[b.Digest] == "" {
				return false
			}
		}
		return true
	})
}

// keepsNothingOf fails the test if a digest is in the folder once nothing is being
// fetched any more.
func (r *rig) keepsNothingOf(what string, d digest.Digest) {
	r.t.Helper()
	r.settles()
	if r.has(d) {
		r.t.Errorf("%s is kept", what)
	}
}

// settles waits until no file is being made. What is present of blobs stays: it is fetched no more
// than once.
func (r *rig) settles() {
	r.t.Helper()
	r.Eventually("no unfinished file is left, except partial blobs", func() bool {
		strange, err := notPartialBlobs(r.folder, 0)
		return err == nil && len(strange) == 0
	})
}

// notPartialBlobs returns the files in the folder for unfinished ones that are neither the data of a
// partial blob nor its list. Those that a running daemon writes just now, if its process id is not
// 0, are no leftovers.
func notPartialBlobs(folder string, running int) ([]string, error) {
	names, err := os.ReadDir(filepath.Join(folder, "partial"))
	if err != nil {
		return nil, err
	}
	var strange []string
	for _, n := range names {
		if running != 0 && strings.Contains(n.Name(), fmt.Sprintf("-%d-", running)) {
			continue
		}
		base, isData := strings.CutSuffix(n.Name(), ".data")
		other := base + ".extents"
		if !isData {
			base, _ = strings.CutSuffix(n.Name(), ".extents")
			other = base + ".data"
		}
		if _, err := os.Stat(filepath.Join(folder, "partial", other)); err != nil || base == n.Name() {
			strange = append(strange, n.Name())
		}
	}
	return strange, nil
}

// onDisk is how many bytes of disk the content takes.
func (r *rig) onDisk() int64 {
	r.t.Helper()
	var sum int64
	for _, kind := range []string{"blobs", "manifests", "partial"} {
		walk(r.t, filepath.Join(r.folder, kind), func(_ string, info fs.FileInfo) { sum += info.Size() })
	}
	return sum
}

// lose removes a blob's file, as an administrator may.
func (r *rig) lose(d digest.Digest) {
	r.t.Helper()
	path := content(r.t, r.folder, nil)[d]
	if err := os.Remove(path); err != nil {
		r.t.Fatal(err)
	}
}

// unusedFor makes all content look as if it had not been used for so long.
func (r *rig) unusedFor(d time.Duration) {
	r.t.Helper()
	then := time.Now().Add(-d)
	for _, path := range content(r.t, r.folder, nil) {
		if err := os.Chtimes(path, then, then); err != nil {
			r.t.Fatal(err)
		}
	}
}

// aged makes the records look so much older: "_tags" and "_answers" say when they were seen,
// "_grants" when they were made.
func (r *rig) aged(kind string, by time.Duration) {
	r.t.Helper()
	then := time.Now().Add(-by)
	changed := 0
	walk(r.t, filepath.Join(r.folder, "repositories"), func(path string, _ fs.FileInfo) {
		if !strings.Contains(path+"/", "/"+kind+"/") {
			return
		}
		changed++
		member := "seen"
		if kind == "_grants" {
			member = "at"
		}
		rewriteTime(r.t, path, member, then)
	})
	if changed == 0 {
		r.t.Fatalf("there is nothing in any %s", kind)
	}
}

// rewriteTime sets one member of each object of a record.
func rewriteTime(t *testing.T, path, member string, then time.Time) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var record any
	if err := json.Unmarshal(data, &record); err != nil {
		t.Fatalf("reading %s: %v", path, err)
	}
	all, isList := record.([]any)
	if !isList {
		all = []any{record}
	}
	for _, one := range all {
		one.(map[string]any)[member] = then.Format(time.RFC3339Nano)
	}
	if data, err = json.Marshal(record); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// spoil changes the first byte of a file in its place, as a bad disk does.
func spoil(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[0] ^= 1
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// sameAs reports whether r gives exactly the bytes of want.
func sameAs(r io.Reader, want digest.Digest) bool {
	got, err := want.Algorithm().FromReader(r)
	return err == nil && got == want
}
