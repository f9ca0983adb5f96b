// Package engine starts real container engines for the tests, by hand: folders,
// sockets and mounts of their own, nothing of the host's touched, ended by id.
package engine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Debian's folders and no more: a newer shim or runc elsewhere in the PATH breaks
// containerd 1.6, and a proxy in the environment would answer for the registry.
const path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"

// NeedRoot skips a test that starts engines where it cannot: they mount.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containerd and dockerd need root: sudo make test")
	}
}

// folder makes a folder for an engine. Its path is short, because a unix socket's
// may have 107 bytes, and t.TempDir's holds the test's name.
func folder(t testing.TB, name string) string {
	t.Helper()
	return folderIn(t, "", name)
}

// memory is folder where writing to disk costs nothing, if there is such a place with
// room: engines sync at each step, and no test of them is about the disk.
func memory(t testing.TB, name string) string {
	t.Helper()
	const shared, room = "/dev/shm", 256 << 20
	var free syscall.Statfs_t
	if err := syscall.Statfs(shared, &free); err != nil || free.Bavail*uint64(free.Bsize) < room {
		return folder(t, name)
	}
	return folderIn(t, shared, name)
}

func folderIn(t testing.TB, parent, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "sm-"+name+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("the engine left a mount or an open file behind: %v", err)
		}
	})
	return dir
}

// ownMounts gives cmd a mount namespace of its own, so that nothing it mounts
// outlives it, and puts the file of each pair over the path it is named for.
func ownMounts(cmd *exec.Cmd, over map[string]string) {
	var script strings.Builder
	for target, source := range over {
		fmt.Fprintf(&script, "mount --bind '%s' '%s' && ", source, target)
	}
	script.WriteString(`exec "$@"`)
	cmd.Args = append([]string{"sh", "-c", script.String(), "sh"}, cmd.Args...)
	cmd.Path = "/bin/sh"
	// Unshareflags, not Cloneflags: with it Go makes the mounts private first.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
}

// awaitSocket reports nil once path is a socket.
func awaitSocket(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s is no socket", path)
	}
	return nil
}

func write(t testing.TB, dir, name, content string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
