package cache

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// holdersOf returns the names of the repositories that hold content, as the folder of holders says.
func holdersOf(t *testing.T, d *Dir, dgst digest.Digest) (names []string, known bool) {
	t.Helper()
	known, err := d.Holders(t.Context(), dgst, func(r Record) bool {
		names = append(names, r.Repository.Name)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names, known
}

// threeHolders makes three repositories hold a blob.
func threeHolders(t *testing.T, d *Dir) digest.Digest {
	t.Helper()
	dgst := put(t, d, "shared", 0)
	for _, name := range []string{"a", "b", "b/c"} {
		if err := d.HoldBlob(Repository{"docker.io", name}, dgst, Learned{Upstream: "u"}); err != nil {
			t.Fatal(err)
		}
	}
	return dgst
}

func TestTheHoldersOfContentAreFoundWithoutAWalk(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	dgst := threeHolders(t, d)
	put(t, d, "another", 0)
	if names, known := holdersOf(t, d, dgst); !known || !slices.Equal(names, []string{"a", "b", "b/c"}) {
		t.Errorf("%v, known is %v", names, known)
	}
	// The records are the truth.
	if err := d.Forget(Repository{"docker.io", "b"}, KindBlob, dgst); err != nil {
		t.Fatal(err)
	}
	if names, _ := holdersOf(t, d, dgst); !slices.Equal(names, []string{"a", "b/c"}) {
		t.Errorf("after one was forgotten: %v", names)
	}
	// The latest is asked for first, and the caller may stop there.
	var first []string
	_, err := d.Holders(t.Context(), dgst, func(r Record) bool {
		first = append(first, r.Repository.Name)
		return false
	})
	if err != nil || !slices.Equal(first, []string{"b/c"}) {
		t.Errorf("%v, %v", first, err)
	}
}

func TestADamagedFolderOfHoldersIsWrittenAnew(t *testing.T) {
	t.Parallel()
	mark := func(path string) string { return filepath.Join(path, holdersFolder, holdersMark) }
	for name, damage := range map[string]func(path, shard string) error{
		"missing, as in a cache of the previous version": func(path, _ string) error {
			return os.RemoveAll(filepath.Join(path, holdersFolder))
		},
		"not complete":          func(path, _ string) error { return os.Remove(mark(path)) },
		"of another cache":      func(path, _ string) error { return os.WriteFile(mark(path), []byte("0123\n"), 0o600) },
		"a file truncated":      func(_, shard string) error { return os.Truncate(shard, 100) },
		"a file of other bytes": func(_, shard string) error { return os.WriteFile(shard, make([]byte, 5000), 0o600) },
		"a file missing":        func(_, shard string) error { return os.Remove(shard) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := t.TempDir()
			d := reopened(t, path, Limits{})
			dgst := threeHolders(t, d)
			if err := errors.Join(d.Close(), damage(path, filepath.Join(path, holdersFolder, shardOf(dgst)))); err != nil {
				t.Fatal(err)
			}
			d = reopened(t, path, Limits{})
			defer d.Close()
			holdersOf(t, d, dgst) // nothing bad
			// What is recorded meanwhile is not lost.
			if err := d.HoldBlob(alpine, dgst, Learned{Upstream: "u"}); err != nil {
				t.Fatal(err)
			}
			for range 2 { // one sweep finds it out, the next one writes it
				if err := d.sweepRecords(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
			}
			if names, known := holdersOf(t, d, dgst); !known || !slices.Equal(names, []string{"a", "b", "b/c", "library/alpine"}) {
				t.Errorf("%v, known is %v", names, known)
			}
		})
	}
}

func TestLinesOfNoUseAreRemovedFromTheFolderOfHolders(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	dgst := put(t, d, "layer", 0)
	for range 2*spareHolders + 10 {
		d.noteHolder(alpine, KindBlob, dgst)
	}
	if err := d.HoldBlob(alpine, dgst, Learned{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.sweepRecords(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if lines, err := d.countHolders(); err != nil || lines != 1 {
		t.Errorf("%d lines, %v", lines, err)
	}
}

func TestRemovedContentIsForgottenInAllRepositories(t *testing.T) {
	t.Parallel()
	for _, known := range []bool{true, false} {
		d := open(t, Limits{})
		dgst, other := threeHolders(t, d), put(t, d, "other", 0)
		if err := d.HoldBlob(alpine, other, Learned{}); err != nil {
			t.Fatal(err)
		}
		if !known {
			if err := d.root.Remove(holdersFolder + "/" + holdersMark); err != nil {
				t.Fatal(err)
			}
		}
		gone, err := d.RemoveContent(t.Context(), []Content{{Digest: dgst}})
		if err != nil || !gone[dgst] {
			t.Fatalf("%v, %v", gone, err)
		}
		for _, name := range []string{"a", "b", "b/c"} {
			if len(d.BlobHoldings(Repository{"docker.io", name}, dgst)) > 0 {
				t.Errorf("with known holders %v, %s still holds it", known, name)
			}
		}
		if len(d.BlobHoldings(alpine, other)) == 0 {
			t.Error("a repository has lost other content")
		}
	}
}

// Whatever the file holds: what is found has the digest and a name that leads nowhere else.
func FuzzHolders(f *testing.F) {
	dgst := digest.FromString("x")
	line := holderLine(Record{Repository: alpine, Kind: KindBlob, Name: "sha256/" + dgst.Encoded()})
	f.Add([]byte(line))
	f.Add([]byte(line + line[:40]))
	f.Add([]byte("\n" + dgst.String() + " _blobs ../../etc/passwd\n"))
	f.Add([]byte(dgst.String() + " " + dgst.String() + " " + line))
	f.Add([]byte(dgst.String() + " _blobs docker.io/a b\n" + dgst.String() + " _tags docker.io/a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		eachLineWith(data, dgst, func(line []byte) bool {
			if !strings.Contains("\n"+string(data), "\n"+string(line)+"\n") {
				t.Errorf("%q is no line of %q", line, data)
			}
			r, ok := parseHolder(line)
			if !ok {
				return true
			}
			if r.Digest() != dgst || filepath.Clean(r.Path) != r.Path || !strings.HasPrefix(r.Path, "repositories/"+r.Repository.Registry+"/") {
				t.Errorf("%q leads to %+v", line, r)
			}
			if again := holderLine(r); again != string(line)+"\n" {
				t.Errorf("%q is written as %q", line, again)
			}
			return true
		})
	})
}
