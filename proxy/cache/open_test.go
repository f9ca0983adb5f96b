package cache

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// os.Root is used if the kernel refuses, so that both must treat each name alike.
func TestFilesAreOpenedInTheFolderAlone(t *testing.T) {
	t.Parallel()
	path, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	d := openAt(t, path, Limits{})
	for _, err := range []error{
		os.WriteFile(outside, []byte("outside"), fileMode),
		os.WriteFile(filepath.Join(path, "blobs", "file"), []byte("inside"), fileMode),
		os.Symlink("file", filepath.Join(path, "blobs", "link")),
		os.Symlink(outside, filepath.Join(path, "blobs", "out")),
		os.Symlink(filepath.Dir(outside), filepath.Join(path, "blobs", "folder")),
		os.Symlink("loop", filepath.Join(path, "blobs", "loop")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	up, err := filepath.Rel(path, outside)
	if err != nil {
		t.Fatal(err)
	}
	opens := map[string]func(string) (*os.File, error){
		"open":    d.open,
		"os.Root": d.root.Open,
	}
	for name, test := range map[string]struct {
		inside bool
		err    error // nil: any
	}{
		"blobs/file":           {true, nil},
		"blobs/link":           {true, nil},
		"blobs/../blobs/file":  {true, nil},
		"blobs/none":           {false, fs.ErrNotExist},
		"none/none":            {false, fs.ErrNotExist},
		"blobs/file/file":      {false, unix.ENOTDIR},
		"blobs/out":            {false, nil},
		"blobs/folder/outside": {false, nil},
		"blobs/loop":           {false, nil},
		up:                     {false, nil},
		outside:                {false, nil},
	} {
		for opener, open := range opens {
			f, err := open(name)
			if err != nil {
				if test.inside || test.err != nil && !errors.Is(err, test.err) {
					t.Errorf("%s of %s: %v", opener, name, err)
				}
				continue
			}
			data, err := io.ReadAll(f)
			f.Close()
			if !test.inside || err != nil || string(data) != "inside" {
				t.Errorf("%s of %s reads %q, %v", opener, name, data, err)
			}
			if f.Name() != filepath.Join(path, name) && name != "blobs/../blobs/file" {
				t.Errorf("%s of %s is called %s", opener, name, f.Name())
			}
		}
	}
}

func TestAFileThatIsOpenedForWritingCanBeWritten(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	d := openAt(t, path, Limits{})
	file := filepath.Join(path, "partial", "file")
	if err := os.WriteFile(file, []byte("old"), fileMode); err != nil {
		t.Fatal(err)
	}
	f, err := d.openFile("partial/file", os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("new"), 0); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "new" {
		t.Errorf("%q, %v", data, err)
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("another program would inherit the file: flags %#x, %v", flags, err)
	}
}
