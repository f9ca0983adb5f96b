package program

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const canary = "canary-secret-5c1e"

// script makes a program called x of a shell script.
func script(t *testing.T, text string, env ...string) *Runner {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x"), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return NewRunner([]string{filepath.Join(dir, "missing"), dir}, append([]string{"PATH=/usr/bin:/bin"}, env...))
}

func TestAProgramGetsItsInputAndNothingElseOfTheEnvironment(t *testing.T) {
	t.Setenv("CANARY", canary)
	r := script(t, `cat; echo "|$*|"; env`, "HOME=/nowhere")
	out, err := r.Run(t.Context(), Command{Name: "x", Args: []string{"get", "it"}, Env: []string{"A=b"}, Stdin: []byte("quay.io"), Limit: time.Minute})
	if err != nil || out.Status != 0 {
		t.Fatal(out.Status, err)
	}
	text := out.Text.Reveal()
	if !strings.HasPrefix(text, "quay.io|get it|\n") || !strings.Contains(text, "\nHOME=/nowhere\n") || !strings.Contains(text, "A=b\n") {
		t.Errorf("got %q", text)
	}
	if strings.Contains(text, canary) {
		t.Error("it sees the daemon's environment")
	}
}

func TestWhatAProgramPrintsIsInNoError(t *testing.T) {
	for name, text := range map[string]string{
		"a failure":       "echo " + canary + "; echo " + canary + " >&2; exit 1",
		"a signal":        "echo " + canary + "; kill -9 $$",
		"without an end":  "yes " + canary,
		"and then a hang": "echo " + canary + "; sleep 1000",
	} {
		t.Run(name, func(t *testing.T) {
			out, err := script(t, text).Run(t.Context(), Command{Name: "x", Limit: 2 * time.Second})
			if err == nil && out.Status == 0 {
				t.Error("it counts as a success")
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("the error quotes it: %v", err)
			}
		})
	}
}

// A gibibyte must neither be stored nor waited for.
func TestEndlessOutputIsCut(t *testing.T) {
	for _, text := range []string{"exec head -c 1073741824 /dev/zero", "exec yes"} {
		_, err := script(t, text).Run(t.Context(), Command{Name: "x", Limit: 10 * time.Minute})
		if err == nil || !strings.Contains(err.Error(), "64 KiB") {
			t.Errorf("%s: %v", text, err)
		}
	}
	text := bytes.Repeat([]byte("a"), maxOutput)
	out, err := script(t, "exec head -c "+strconv.Itoa(maxOutput)+" /dev/zero | tr '\\0' a").Run(t.Context(), Command{Name: "x", Limit: time.Minute})
	if err != nil || out.Text.Reveal() != string(text) {
		t.Errorf("as much as is allowed: %d bytes, %v", len(out.Text.Reveal()), err)
	}
}

// started returns the process id that a script wrote to a file.
func started(t *testing.T, file string) int {
	t.Helper()
	for range 1000 {
		if data, err := os.ReadFile(file); err == nil && bytes.HasSuffix(data, []byte("\n")) {
			pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the script did not start a process")
	return 0
}

// gone waits until a process has ended: the kernel delivers a signal later than kill returns.
func gone(pid int) bool {
	for range 1000 {
		state, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || bytes.Contains(state, []byte(") Z ")) {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

func TestEveryProcessOfTheGroupEndsWithTheProgram(t *testing.T) {
	for name, end := range map[string]string{"it ends well": "exit 0", "it hangs": "sleep 1000"} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pid")
			r := script(t, "sleep 1000 & echo $! >"+file+"\necho done\n"+end)
			out, err := r.Run(t.Context(), Command{Name: "x", Limit: 3 * time.Second})
			if hangs := end != "exit 0"; (err != nil) != hangs || !hangs && out.Text.Reveal() != "done\n" {
				t.Errorf("%q, %v", out.Text.Reveal(), err)
			}
			if !gone(started(t, file)) {
				t.Error("a process of its group lives on")
			}
		})
	}
}

// One that leaves the group cannot be found, and must not be waited for.
func TestAProcessThatLeavesTheGroupIsNotWaitedFor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	r := script(t, "setsid sh -c 'echo $$ >"+file+"; exec sleep 1000' & while ! [ -s "+file+" ]; do sleep 0.1; done; echo done")
	out, err := r.Run(t.Context(), Command{Name: "x", Limit: 10 * time.Minute})
	if pid := started(t, file); pid > 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil || out.Text.Reveal() != "done\n" {
		t.Errorf("%q, %v", out.Text.Reveal(), err)
	}
}

func TestAProgramEndsWithTheRequestThatItIsFor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	r := script(t, "echo $$ >"+file+"; exec sleep 1000")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		started(t, file)
		cancel()
	}()
	if _, err := r.Run(ctx, Command{Name: "x", Limit: 10 * time.Minute}); err == nil {
		t.Error("no error")
	}
	if !gone(started(t, file)) {
		t.Error("it lives on")
	}
}

func TestProgramsThatOthersCouldExchangeAreNotRun(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"the program":          func(path string) error { return os.Chmod(path, 0o775) },
		"its folder":           func(path string) error { return os.Chmod(filepath.Dir(path), 0o777) },
		"the folder above":     func(path string) error { return os.Chmod(filepath.Dir(filepath.Dir(path)), 0o777) },
		"another user's":       func(path string) error { return os.Chown(path, 65534, 65534) },
		"another user's files": func(path string) error { return os.Chown(filepath.Dir(path), 65534, 65534) },
		"not executable":       func(path string) error { return os.Chmod(path, 0o644) },
		"a folder":             func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o755)) },
		"a link to nothing":    func(path string) error { return errors.Join(os.Remove(path), os.Symlink("nothing", path)) },
		"a link to others": func(path string) error {
			other := filepath.Join(filepath.Dir(path), "open", "x")
			return errors.Join(os.Mkdir(filepath.Dir(other), 0o755), os.Rename(path, other), os.Chmod(filepath.Dir(other), 0o777), os.Symlink(other, path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() != 0 && strings.HasPrefix(name, "another") {
				t.Skip("needs root")
			}
			r := script(t, "echo "+canary)
			path, err := r.Find("x")
			if err != nil {
				t.Fatal(err)
			}
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			if out, err := r.Run(t.Context(), Command{Name: "x", Limit: time.Minute}); err == nil {
				t.Errorf("it was run: status %d", out.Status)
			}
		})
	}
}

func TestNamesThatLeadElsewhereAreRefused(t *testing.T) {
	r := script(t, "exit 0")
	for _, name := range []string{"", ".", "..", "../x", "/bin/true", "X", "a b", "-x", strings.Repeat("a", 70), "x\x00"} {
		if _, err := r.Find(name); err == nil {
			t.Errorf("%q is found", name)
		}
	}
	if _, err := r.Find("y"); err == nil || !strings.Contains(err.Error(), "y is not installed in") {
		t.Errorf("one that is missing: %v", err)
	}
}
