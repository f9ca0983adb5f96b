package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestLastGoodIsStoredForEachFile(t *testing.T) {
	t.Parallel()
	store := LastGood(filepath.Join(t.TempDir(), "state", "last-good-config"))
	first, second := mustLoad(t, "[log]\nlevel = 'debug'\n"), mustLoad(t, "[log]\nlevel = 'warn'\n")
	for _, c := range []*Config{first, second, first} {
		if err := store.Save(c); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []*Config{first, second} {
		if err := os.WriteFile(c.File, []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := store.Load(Source{Path: c.File})
		if err != nil || got.Log.Level != c.Log.Level {
			t.Errorf("loaded %v, %v; want the level %s", got, err, c.Log.Level)
		}
	}
	got, err := store.Load(Source{Path: first.File, Environ: []string{"SIDEMIRROR_LOG_LEVEL=error"}})
	if err != nil || got.Log.Level != "error" {
		t.Errorf("the environment does not count: %v, %v", got, err)
	}
	entries, err := os.ReadDir(string(store))
	if err != nil || len(entries) != 2 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

func TestLastGoodIsMissingAtFirst(t *testing.T) {
	t.Parallel()
	store := LastGood(filepath.Join(t.TempDir(), "state"))
	c := mustLoad(t, "")
	if _, err := store.Load(Source{Path: c.File}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if err := store.Save(c); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Load(Source{Path: c.File + ".other"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the configuration of another file was loaded: %v", err)
	}
}

func TestLastGoodThatAnotherUserCanWriteIsNotRead(t *testing.T) {
	t.Parallel()
	store := LastGood(t.TempDir())
	c := mustLoad(t, "")
	if err := store.Save(c); err != nil {
		t.Fatal(err)
	}
	name, err := lastGoodName(c.File)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(string(store), name)
	if err := os.Chmod(path, 0o622); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Load(Source{Path: c.File}); err == nil {
		t.Error("a file was read that every user can write")
	}
	if os.Getuid() == 0 {
		const other = 65534
		if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, other, other)); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Load(Source{Path: c.File}); err == nil {
			t.Error("a file of another user was read")
		}
		if _, err := store.Load(Source{Path: c.File}, other); err != nil {
			t.Errorf("a file of a user who may own it was not read: %v", err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(c.File, path); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Load(Source{Path: c.File}); err == nil {
		t.Error("a link was followed")
	}
}

func TestLastGoodHoldsFewConfigurations(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := LastGood(filepath.Join(dir, "state"))
	for i := range 2 * maxLastGood {
		c, err := Source{Path: fmt.Sprintf("%s/%d.toml", dir, i)}.Parse(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Save(c); err != nil {
			t.Fatal(err)
		}
	}
	if entries, err := os.ReadDir(string(store)); err != nil || len(entries) != maxLastGood {
		t.Errorf("%d files, %v", len(entries), err)
	}
	if _, err := store.Load(Source{Path: fmt.Sprintf("%s/%d.toml", dir, 2*maxLastGood-1)}); err != nil {
		t.Errorf("the newest was removed: %v", err)
	}
}

func TestDefaultLastGoodIsInTheStateFolder(t *testing.T) {
	t.Parallel()
	for entry, want := range map[string]LastGood{
		"":                        "/var/lib/sidemirror/last-good-config",
		"STATE_DIRECTORY=/a:/b":   "/a/last-good-config",
		"STATE_DIRECTORY=/srv/sm": "/srv/sm/last-good-config",
	} {
		if got := DefaultLastGood([]string{"HOME=/root", entry}); got != want {
			t.Errorf("%q: %s", entry, got)
		}
	}
}
