package harness

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Mount mounts a file system of kind at a folder until the end of the test. Another test's namespace
// that was made meanwhile may have a copy of the mount, which can then only be detached here.
func Mount(t *testing.T, source, kind, options string) (folder string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	folder = t.TempDir()
	if err := syscall.Mount(source, folder, kind, 0, options); err != nil {
		t.Fatalf("mounting a %s: %v", kind, err)
	}
	t.Cleanup(func() {
		err := syscall.Unmount(folder, 0)
		if errors.Is(err, syscall.EBUSY) {
			err = syscall.Unmount(folder, syscall.MNT_DETACH)
		}
		if err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return folder
}

// FillDisk takes all that is left of a disk, and gives it back when release is called.
func FillDisk(t *testing.T, disk string) (release func()) {
	t.Helper()
	path := filepath.Join(disk, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 64<<10); len(chunk) > 0; {
		n, err := f.Write(chunk)
		if errors.Is(err, syscall.ENOSPC) && n == 0 {
			chunk = chunk[:len(chunk)/2]
		} else if err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}
