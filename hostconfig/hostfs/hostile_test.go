package hostfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/durable"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// withoutProcEnv names the tree on which this test binary, run once more, reads and writes in a
// mount namespace without /proc.
const withoutProcEnv = "SIDEMIRROR_TEST_WITHOUT_PROC"

func TestMain(m *testing.M) {
	if dir := os.Getenv(withoutProcEnv); dir != "" {
		if err := withoutProc(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	if dir := os.Getenv(lockEnv); dir != "" {
		if err := holdLock(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func withoutProc(dir string) error {
	err := errors.Join(unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Unmount("/proc", unix.MNT_DETACH))
	if _, statErr := os.Stat("/proc/self"); err != nil || statErr == nil {
		return fmt.Errorf("/proc is still there: %w", err)
	}
	h, err := Open(dir)
	if err != nil {
		return err
	}
	defer h.Close()
	f, err := h.ReadTrusted("/link/file")
	if err != nil || string(f.Data) != "text" {
		return fmt.Errorf("read %q: %w", f.Data, err)
	}
	at := f.Attrs
	at.Mtime = time.Unix(1e9, 5)
	if err := h.Write(f.Real, f.Data, []byte("new"), at); err != nil {
		return err
	}
	f, err = h.ReadTrusted("/link/file")
	if err != nil || string(f.Data) != "new" || !f.Attrs.Mtime.Equal(at.Mtime) {
		return fmt.Errorf("wrote %q at %v: %w", f.Data, f.Attrs.Mtime, err)
	}
	return errors.Join(h.MakeFolder("/a/new", 0o700), h.RemoveFolder("/a/new"), h.Remove(f.Real, f.Data))
}

func TestHostsWithoutProc(t *testing.T) {
	needRoot(t)
	h := tree(t, map[string]string{"/a/file": "text"})
	if err := os.Symlink("/a", h.path("/link")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), withoutProcEnv+"="+h.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// small mounts a file system of its own at a folder of the tree.
func small(t *testing.T, h *Host, folder string, flags uintptr) {
	t.Helper()
	needRoot(t)
	if err := unix.Mount("tmpfs", h.path(folder), "tmpfs", flags, "size=64k,mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(h.path(folder), unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// isLike checks that the folder holds exactly one file, with this text.
func isLike(t *testing.T, h *Host, folder, file, text string) {
	t.Helper()
	list, err := os.ReadDir(h.path(folder))
	if err != nil || len(list) != 1 {
		t.Errorf("%d files: %v, %v", len(list), list, err)
	}
	if data, err := os.ReadFile(h.path(file)); err != nil || string(data) != text {
		t.Errorf("%q, %v", data, err)
	}
}

func TestAFullDiskLeavesTheOldFile(t *testing.T) {
	h := tree(t, map[string]string{"/full/": ""})
	small(t, h, "/full", 0)
	old := strings.Repeat("o", 40<<10)
	if err := os.WriteFile(h.path("/full/file"), []byte(old), 0o644); err != nil {
		t.Fatal(err)
	}
	err := h.Write("/full/file", []byte(old), bytes.Repeat([]byte("n"), 41<<10), Attrs{Mode: 0o644})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(problem.Hint(err), "free space") {
		t.Errorf("error: %v, hint %q", err, problem.Hint(err))
	}
	isLike(t, h, "/full", "/full/file", old)
	err = h.Write("/full/other", nil, bytes.Repeat([]byte("n"), 41<<10), Attrs{Mode: 0o644})
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a new file: %v", err)
	}
	isLike(t, h, "/full", "/full/file", old)
}

// A mount of one file, as container runtimes make them, on a full disk: written in place, and put
// back when the disk fills up halfway.
func TestAFullDiskPutsAFileWrittenInPlaceBack(t *testing.T) {
	h := tree(t, map[string]string{"/full/": "", "/file": ""})
	small(t, h, "/full", 0)
	old := strings.Repeat("o", 30<<10)
	if err := os.WriteFile(h.path("/full/file"), []byte(old), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(h.path("/full/file"), h.path("/file"), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(h.path("/file"), unix.MNT_DETACH) })
	stored, removed := false, false
	h.InPlace = func(w InPlace) (func() error, error) {
		stored = string(w.Before) == old
		return func() error { removed = true; return nil }, nil
	}
	err := h.Write("/file", []byte(old), bytes.Repeat([]byte("n"), 90<<10), Attrs{Mode: 0o644})
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error: %v", err)
	}
	isLike(t, h, "/full", "/file", old)
	if !stored || !removed {
		t.Errorf("stored before: %v, removed after: %v", stored, removed)
	}
	if err := h.Write("/file", []byte(old), []byte("new"), Attrs{Mode: 0o644}); err != nil {
		t.Error(err)
	}
	isLike(t, h, "/full", "/full/file", "new")
}

func TestAReadOnlyFileSystemIsReportedBeforeAndAtTheWrite(t *testing.T) {
	h := tree(t, map[string]string{"/ro/": ""})
	small(t, h, "/ro", 0)
	if err := os.WriteFile(h.path("/ro/file"), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", h.path("/ro"), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	f, err := h.Read("/ro/file")
	if err != nil {
		t.Fatal(err)
	}
	missing, err := h.Read("/ro/none/of/it")
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"Writable":            h.Writable(f),
		"Writable, missing":   h.Writable(missing),
		"Write":               h.Write("/ro/file", []byte("old"), []byte("new"), Attrs{Mode: 0o644}),
		"Remove":              h.Remove("/ro/file", []byte("old")),
		"MakeFolder":          h.MakeFolder("/ro/new", 0o755),
		"RemoveAll":           h.RemoveAll("/ro/file"),
		"Write of a new file": h.Write("/ro/other", nil, []byte("new"), Attrs{Mode: 0o644}),
	} {
		if err == nil || !strings.Contains(err.Error(), "read-only") || !strings.Contains(problem.Hint(err), "make it writable") {
			t.Errorf("%s: %v, hint %q", what, err, problem.Hint(err))
		}
	}
	isLike(t, h, "/ro", "/ro/file", "old")
}

func TestFilesThatAreNotRegularAreRefusedUnopened(t *testing.T) {
	h := tree(t, map[string]string{"/a/file": "text"})
	for name, make := range map[string]func(name string) error{
		"/a/fifo":   func(name string) error { return unix.Mkfifo(name, 0o644) },
		"/a/folder": func(name string) error { return os.Mkdir(name, 0o755) },
		"/a/link":   func(name string) error { return os.Link(h.path("/a/file"), name) },
		"/a/null": func(name string) error {
			if os.Geteuid() != 0 {
				return unix.Mkfifo(name, 0o644)
			}
			return unix.Mknod(name, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3)))
		},
	} {
		if err := make(h.path(name)); err != nil {
			t.Fatal(err)
		}
		if f, err := h.Read(name); err == nil || f.Exists() {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
		for _, before := range [][]byte{nil, []byte("text")} {
			if err := h.Write(name, before, []byte("new"), Attrs{Mode: 0o644}); err == nil {
				t.Errorf("%s: written", name)
			}
		}
		if err := h.Remove(name, []byte("text")); err == nil {
			t.Errorf("%s: removed", name)
		}
	}
	if data, err := os.ReadFile(h.path("/a/file")); err != nil || string(data) != "text" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestALinkInTheTemporaryFilesPlaceIsNotFollowed(t *testing.T) {
	h := tree(t, map[string]string{"/a/file": "old", "/victim": "theirs"})
	temp := h.path("/a/" + durable.Temp("file"))
	if err := os.Symlink("../victim", temp); err != nil {
		t.Fatal(err)
	}
	if err := h.RemoveTemp("/a/file"); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(temp); err != nil {
		t.Errorf("what is not a file of sidemirror's was removed: %v", err)
	}
	if err := h.Write("/a/file", []byte("old"), []byte("new"), Attrs{Mode: 0o644}); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(h.path("/victim")); err != nil || string(data) != "theirs" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := os.Lstat(temp); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary file is left: %v", err)
	}
}
