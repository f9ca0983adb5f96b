package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const overflow = 65534 // the kernel's user id for users that it cannot name

// files makes a folder with a file that every user may read, one of a group, and one of root.
func files(t *testing.T) (everyone, group, root string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir, err := os.MkdirTemp("/var/tmp", "sandbox")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	everyone, group, root = filepath.Join(dir, "everyone"), filepath.Join(dir, "group"), filepath.Join(dir, "root")
	for name, mode := range map[string]os.FileMode{everyone: 0o644, group: 0o640, root: 0o600} {
		if err := os.WriteFile(name, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(group, 0, 4242)); err != nil {
		t.Fatal(err)
	}
	return everyone, group, root
}

func TestFilesAreReadAsTheServiceReadsThem(t *testing.T) {
	everyone, group, root := files(t)
	for name, c := range map[string]struct {
		service  Service
		readable map[string]bool
	}{
		"another user":            {Service{UID: overflow, GID: overflow}, map[string]bool{everyone: true, group: false, root: false}},
		"another user of a group": {Service{UID: overflow, GID: overflow, Groups: []uint32{4242}}, map[string]bool{everyone: true, group: true, root: false}},
		"root":                    {Service{}, map[string]bool{everyone: true, group: true, root: true}},
		"a folder is hidden":      {Service{UID: overflow, GID: overflow, Hidden: []string{"/var/tmp", "/nonexistent"}}, map[string]bool{everyone: false}},
	} {
		for file, readable := range c.readable {
			var readErr error
			var uid int
			if err := Run(c.service, func() { _, readErr = os.ReadFile(file); uid = os.Geteuid() }); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if (readErr == nil) != readable || readErr != nil && !errors.Is(readErr, fs.ErrPermission) || uid != int(c.service.UID) {
				t.Errorf("%s, %s: %v, as user %d", name, filepath.Base(file), readErr, uid)
			}
		}
	}
	// The caller is what it was.
	if _, err := os.ReadFile(root); err != nil || os.Geteuid() != 0 {
		t.Errorf("after it: %v, as user %d", err, os.Geteuid())
	}
}

func TestARunningServiceIsEntered(t *testing.T) {
	everyone, _, _ := files(t)
	cmd := exec.Command("sh", "-c", "mount --make-rprivate / && mount -t tmpfs tmpfs /var/tmp && echo ready && exec sleep 1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	var readErr error
	if err := Run(Service{PID: cmd.Process.Pid}, func() { _, readErr = os.ReadFile(everyone) }); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(readErr, fs.ErrNotExist) {
		t.Errorf("the service would not see the file: %v", readErr)
	}
	if _, err := os.ReadFile(everyone); err != nil {
		t.Errorf("the caller does: %v", err)
	}
}

func TestWhatCannotBecomeTheServiceIsNotRun(t *testing.T) {
	files(t)
	if err := Run(Service{PID: 1 << 22}, func() { t.Error("it ran") }); err == nil {
		t.Error("no error for a process that does not exist")
	}
}
