package cache

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Run by hand, with whatever umask, the cache was readable by every user.
func TestWhatIsStoredIsForItsOwnerAlone(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077} {
		func() {
			defer unix.Umask(unix.Umask(umask))
			dir := filepath.Join(t.TempDir(), "above", "cache")
			d, err := Open(dir, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			put(t, d, "layer", 0)
			m := putManifest(t, d, "{}")
			if err := d.SetTag(alpine, "3.20", Meaning{Digest: m, MediaType: manifestType, Seen: time.Now()}); err != nil {
				t.Fatal(err)
			}
			files := 0
			err = filepath.WalkDir(filepath.Dir(dir), func(name string, entry fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				info, err := entry.Info()
				if err != nil {
					return err
				}
				if info.Mode().Perm()&0o077 != 0 {
					t.Errorf("umask %03o: %s has mode %v", umask, name, info.Mode())
				}
				files++
				return nil
			})
			if err != nil || files < 15 {
				t.Errorf("%d files and folders, %v", files, err)
			}
		}()
	}
}

func TestAFolderThatAllUsersCouldReadIsClosedToThem(t *testing.T) {
	t.Parallel()
	for before, after := range map[os.FileMode]os.FileMode{0o755: 0o700, 0o777: 0o700, 0o701: 0o700, 0o750: 0o750, 0o700: 0o700} {
		dir := t.TempDir()
		if err := os.Chmod(dir, before); err != nil {
			t.Fatal(err)
		}
		d, err := Open(dir, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != after {
			t.Errorf("mode %04o became %v, want %04o: %v", before, info.Mode(), after, err)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 12, 12); err != nil {
		t.Fatal(err)
	}
	d, err := Open(dir, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("another user's folder was changed: %v, %v", info.Mode(), err)
	}
}
