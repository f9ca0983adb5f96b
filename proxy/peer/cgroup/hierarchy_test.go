package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A folder of a disk has an inode number too, so that a tree on disk is searched in the same way as
// one of control groups. What only the kernel's can show is in test/boot.
func onDisk(t *testing.T, groups ...string) *Hierarchy {
	t.Helper()
	dir := t.TempDir()
	for _, g := range groups {
		if err := os.MkdirAll(filepath.Join(dir, g), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &Hierarchy{dir: dir, complete: true, known: make(map[uint64]string)}
}

func (h *Hierarchy) id(t *testing.T, group string) uint64 {
	t.Helper()
	info, err := os.Lstat(filepath.Join(h.dir, group))
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func TestAnIDIsFoundAnywhereInTheTree(t *testing.T) {
	t.Parallel()
	groups := []string{
		"/", "/init.scope", "/system.slice/docker.service", "/system.slice/docker-ab.scope/a/b", "/kubepods.slice/pod/c",
		"/user.slice/user-0.slice/session-1.scope", "/machine.slice/libpod-x.scope/container",
	}
	h := onDisk(t, groups...)
	if err := os.WriteFile(filepath.Join(h.dir, "system.slice/cgroup.procs"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time from memory
		for _, g := range groups {
			if got, ok := h.Path(h.id(t, g)); got != g || !ok {
				t.Errorf("%s is found at %q", g, got)
			}
		}
	}
	if got, ok := h.Path(h.id(t, "/system.slice/cgroup.procs")); ok {
		t.Errorf("a file is taken for the group %q", got)
	}
}

func TestAGroupThatWasRemovedIsStillKnown(t *testing.T) {
	t.Parallel()
	h := onDisk(t, "/a", "/b")
	a, b := h.id(t, "/a"), h.id(t, "/b")
	h.Path(a)
	for _, g := range []string{"a", "b"} {
		if err := os.Remove(filepath.Join(h.dir, g)); err != nil {
			t.Fatal(err)
		}
	}
	if got, ok := h.Path(a); got != "/a" || !ok {
		t.Errorf("known before: %q, %v", got, ok)
	}
	if got, ok := h.Path(b); ok {
		t.Errorf("not known before: %q", got)
	}
}

func TestASearchThatFailsIsRepeated(t *testing.T) {
	t.Parallel()
	h := onDisk(t, "/a")
	id := h.id(t, "/a")
	gone := h.dir + ".away"
	if err := os.Rename(h.dir, gone); err != nil {
		t.Fatal(err)
	}
	if got, ok := h.Path(id); ok {
		t.Errorf("found at %q without a hierarchy", got)
	}
	if err := os.Rename(gone, h.dir); err != nil {
		t.Fatal(err)
	}
	if got, ok := h.Path(id); got != "/a" || !ok {
		t.Errorf("after that: %q, %v", got, ok)
	}
}

func TestSymbolicLinksAreNotFollowed(t *testing.T) {
	t.Parallel()
	h, other := onDisk(t, "/a"), onDisk(t, "/docker.service")
	if err := os.Symlink(other.dir, filepath.Join(h.dir, "system.slice")); err != nil {
		t.Fatal(err)
	}
	if got, ok := h.Path(other.id(t, "/docker.service")); ok {
		t.Errorf("found at %q", got)
	}
}

func TestASearchIsBounded(t *testing.T) {
	t.Parallel()
	h := onDisk(t)
	deep := ""
	for range maxDepth + 5 {
		deep += "/g"
	}
	if err := os.MkdirAll(filepath.Join(h.dir, deep), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, ok := h.Path(h.id(t, deep)); ok {
		t.Errorf("found %d bytes deep", len(got))
	}
	for i := range 2 * maxKnown {
		h.remember(uint64(i)+1<<40, fmt.Sprint("/", i))
	}
	if len(h.known) > maxKnown {
		t.Errorf("%d ids are remembered", len(h.known))
	}
}

func TestWithoutCgroup2NothingIsFound(t *testing.T) {
	t.Parallel()
	h := Open(t.TempDir())
	if _, ok := h.Path(1); ok || h.Complete() {
		t.Error("an empty folder is a hierarchy")
	}
	if _, ok := new(Hierarchy).Path(1); ok {
		t.Error("the zero Hierarchy finds something")
	}
}
