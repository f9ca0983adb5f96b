package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/durable"
)

// folder returns an open temporary folder with the files given.
func folder(t *testing.T, files map[string]string) *os.File {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// holds checks that the folder has exactly these files.
func holds(t *testing.T, dir *os.File, want map[string]string) {
	t.Helper()
	list, err := os.ReadDir(dir.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range list {
		data, err := os.ReadFile(filepath.Join(dir.Name(), item.Name()))
		if text, ok := want[item.Name()]; err != nil || !ok || text != string(data) {
			t.Errorf("%s holds %q, want %q: %v", item.Name(), data, text, err)
		}
	}
	if len(list) != len(want) {
		t.Errorf("%d files, want %d", len(list), len(want))
	}
}

func TestReplaceCreatesAndReplacesWithTheModeThatPrepareSets(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"new": nil, "old": {"a": "before"}, "left by a killed run": {".a.sidemirror": "half"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, files)
			err := durable.Replace(dir, "a", []byte("after"), durable.Options{Prepare: func(f *os.File) error { return f.Chmod(0o640) }})
			if err != nil {
				t.Fatal(err)
			}
			holds(t, dir, map[string]string{"a": "after"})
			if info, err := os.Stat(filepath.Join(dir.Name(), "a")); err != nil || info.Mode() != 0o640 {
				t.Errorf("%v, %v", info, err)
			}
		})
	}
}

func TestReplaceThatFailsAtAnyStepLeavesTheOldFileAlone(t *testing.T) {
	var steps []string
	record := func(op string) error { steps = append(steps, op); return nil }
	if err := durable.Replace(folder(t, nil), "a", nil, durable.Options{Step: record}); err != nil {
		t.Fatal(err)
	}
	if len(steps) < 6 {
		t.Fatalf("steps %q", steps)
	}
	for _, last := range steps {
		dir := folder(t, map[string]string{"a": "before"})
		err := durable.Replace(dir, "a", []byte("after"), durable.Options{Step: func(op string) error {
			if op == last {
				return unix.ENOSPC
			}
			return nil
		}})
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: %v", last, err)
		}
		want := "before"
		if last == "sync folder" {
			want = "after" // the rename is done, and the error says that it may not last
		}
		holds(t, dir, map[string]string{"a": want})
	}
}

func TestReplaceStopsIfCheckOrPrepareFails(t *testing.T) {
	fault := errors.New("changed")
	for name, o := range map[string]durable.Options{
		"check":   {Check: func() error { return fault }},
		"prepare": {Prepare: func(*os.File) error { return fault }},
	} {
		dir := folder(t, map[string]string{"a": "before"})
		if err := durable.Replace(dir, "a", []byte("after"), o); !errors.Is(err, fault) {
			t.Errorf("%s: %v", name, err)
		}
		holds(t, dir, map[string]string{"a": "before"})
	}
}

func TestReplaceOfANewFileDoesNotOverwriteOneThatAppeared(t *testing.T) {
	dir := folder(t, nil)
	err := durable.Replace(dir, "a", []byte("ours"), durable.Options{New: true, Check: func() error {
		return os.WriteFile(filepath.Join(dir.Name(), "a"), []byte("theirs"), 0o600)
	}})
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("error: %v", err)
	}
	holds(t, dir, map[string]string{"a": "theirs"})
}

// A folder that is exchanged for a link after it was opened is not followed.
func TestReplaceStaysInTheFolderThatWasOpened(t *testing.T) {
	dir, other := folder(t, map[string]string{"a": "before"}), folder(t, map[string]string{"a": "theirs"})
	moved := filepath.Join(t.TempDir(), "moved")
	if err := errors.Join(os.Rename(dir.Name(), moved), os.Symlink(other.Name(), dir.Name())); err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(dir, "a", []byte("after"), durable.Options{}); err != nil {
		t.Fatal(err)
	}
	holds(t, other, map[string]string{"a": "theirs"})
	if data, err := os.ReadFile(filepath.Join(moved, "a")); err != nil || string(data) != "after" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestReplaceDoesNotFollowALinkInTheTemporaryFilesPlace(t *testing.T) {
	dir, other := folder(t, nil), folder(t, map[string]string{"victim": "theirs"})
	if err := os.Symlink(filepath.Join(other.Name(), "victim"), filepath.Join(dir.Name(), durable.Temp("a"))); err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(dir, "a", []byte("after"), durable.Options{}); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, map[string]string{"a": "after"})
	holds(t, other, map[string]string{"victim": "theirs"})
}

func TestRenameMovesAWrittenFileToAnotherFolder(t *testing.T) {
	from, to := folder(t, map[string]string{"x": "bytes"}), folder(t, map[string]string{"y": "old"})
	f, err := os.OpenFile(filepath.Join(from.Name(), "x"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := durable.Rename(f, from, "x", to, "y"); err != nil {
		t.Fatal(err)
	}
	holds(t, from, nil)
	holds(t, to, map[string]string{"y": "bytes"})
	if err := durable.Rename(f, from, "x", to, "y"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestRemoveReportsAMissingFile(t *testing.T) {
	dir := folder(t, map[string]string{"a": ""})
	if err := durable.Remove(dir, "a", durable.Options{}); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, nil)
	if err := durable.Remove(dir, "a", durable.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}
