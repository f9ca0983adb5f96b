package hostfs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// lockEnv names a folder that this test binary, run once more, locks until its input ends. With
// lockChildEnv a child does that with the lock that its parent made, which ends.
const (
	lockEnv      = "SIDEMIRROR_TEST_LOCK"
	lockChildEnv = "SIDEMIRROR_TEST_LOCK_CHILD"
)

func holdLock(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	if os.Getenv(lockChildEnv) != "" {
		cat := exec.Command("/bin/sh", "-c", "echo $$; read line")
		cat.Stdin, cat.Stdout, cat.ExtraFiles = os.Stdin, os.Stdout, []*os.File{f}
		return cat.Start()
	}
	fmt.Println(os.Getpid())
	_, _ = os.Stdin.Read(make([]byte, 1)) // ends with the test
	return nil
}

// held starts a process that holds the lock of h.
func held(t *testing.T, h *Host, attr *syscall.SysProcAttr, env ...string) (pid string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), lockEnv+"="+h.dir), env...)
	cmd.SysProcAttr = attr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if len(env) > 0 {
		if err := cmd.Process.Signal(syscall.Signal(0)); err == nil {
			_, _ = cmd.Process.Wait() // the parent ends after its child is started
		}
	}
	return strings.TrimSpace(line)
}

// now is a context that has ended, with which Lock tries once.
func now() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestLockNamesTheProcessThatHoldsIt(t *testing.T) {
	for name, env := range map[string][]string{"itself": nil, "a child that inherited it": {lockChildEnv + "=1"}} {
		t.Run(name, func(t *testing.T) {
			h := tree(t, nil)
			pid := held(t, h, nil, env...)
			l, err := h.Lock(now())
			if err == nil {
				l.Close()
				t.Fatal("locked all the same")
			}
			want := fmt.Sprintf("locked by process %s (", pid)
			if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("of user %d", os.Getuid())) || problem.Hint(err) == "" {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

func TestLockWaitsUntilItIsFree(t *testing.T) {
	h := tree(t, nil)
	first, err := h.Lock(now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Lock(now()); !errors.Is(err, ErrBusy) {
		t.Errorf("a second time: %v", err)
	}
	type result struct {
		l   interface{ Close() error }
		err error
	}
	done := make(chan result)
	go func() {
		l, err := h.Lock(context.Background())
		done <- result{l, err}
	}()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := <-done
	if second.err != nil {
		t.Fatal(second.err)
	}
	if err := second.l.Close(); err != nil {
		t.Error(err)
	}
}

// Any user may lock a folder that they may read, and must not keep root from taking entries out.
func TestTheLockOfAnotherUserDoesNotCount(t *testing.T) {
	for name, env := range map[string][]string{"itself": nil, "a child that inherited it": {lockChildEnv + "=1"}} {
		t.Run(name, func(t *testing.T) {
			needRoot(t)
			h := tree(t, nil)
			if err := os.Chmod(filepath.Dir(h.dir), 0o755); err != nil {
				t.Fatal(err)
			}
			held(t, h, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12, Gid: 12}}, env...)
			l, err := h.Lock(now())
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A program with the set-uid bit has root's effective user id, but the real one of its caller.
func TestASetuidProgramsLockIsNotRoots(t *testing.T) {
	for name, test := range map[string]struct {
		uids []uint32
		want bool
	}{
		"root": {[]uint32{0, 0, 0, 0}, true}, "su": {[]uint32{1000, 0, 0, 0}, false}, "user": {[]uint32{1000, 1000, 1000, 1000}, false}, "unknown": {nil, false},
	} {
		if got := (holder{uids: test.uids}).isOf([]uint32{0}); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
