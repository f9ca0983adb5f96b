package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
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
	var stat syscall.Stat_t
	if err := syscall.Stat(folder, &stat); err != nil {
		t.Fatal(err)
	}
	device := fmt.Sprintf(" %d:%d ", unix.Major(stat.Dev), unix.Minor(stat.Dev))
	t.Cleanup(func() {
		err := syscall.Unmount(folder, 0)
		if errors.Is(err, syscall.EBUSY) && copied(device) {
			err = syscall.Unmount(folder, syscall.MNT_DETACH)
		}
		if err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return folder
}

// copied reports whether a mount namespace other than this process's has a device, "MAJOR:MINOR" between
// spaces as in mountinfo.
func copied(device string) bool {
	own, _ := os.Readlink("/proc/self/ns/mnt")
	tables, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	for _, table := range tables {
		namespace, err := os.Readlink(filepath.Join(filepath.Dir(table), "ns/mnt"))
		if err != nil || namespace == own {
			continue
		}
		if mounts, err := os.ReadFile(table); err == nil && strings.Contains(string(mounts), device) {
			return true
		}
	}
	return false
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
