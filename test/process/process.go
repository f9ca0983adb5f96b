// Package process finds the programs that setup.sh installs and runs them during
// a test: on ports of their own, ended by their own id, their output kept where
// the test fails.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// startLimit is how long a daemon may take to be ready: dockerd needs under a
	// second on an idle machine, and this one is often busy.
	startLimit = 60 * time.Second
	// stopLimit is how long it may take to leave after SIGTERM.
	stopLimit = 15 * time.Second
	// tail is how much of a daemon's output a failed test prints, in bytes.
	tail = 6 << 10
)

// Path returns the path of a program that setup.sh installs. The test fails
// where it is missing, because a test that is passed over says nothing.
func Path(t testing.TB, name string) string {
	t.Helper()
	path, err := Find(name)
	if err != nil {
		t.Fatalf("%v; install it by test/setup.sh", err)
	}
	return path
}

// Find looks for a program where setup.sh puts the Go programs
// ($SIDEMIRROR_TEST_BIN, else sidemirror-test/bin in the user's cache folder),
// then in PATH, then in the system's folders that an ordinary user's PATH lacks.
// The error is [exec.ErrNotFound].
func Find(name string) (string, error) {
	var folders []string
	if bin := os.Getenv("SIDEMIRROR_TEST_BIN"); bin != "" {
		folders = append(folders, bin)
	} else if cache, err := os.UserCacheDir(); err == nil {
		folders = append(folders, filepath.Join(cache, "sidemirror-test", "bin"))
	}
	folders = append(folders, filepath.SplitList(os.Getenv("PATH"))...)
	folders = append(folders, "/usr/sbin", "/sbin")
	for _, folder := range folders {
		if path, err := exec.LookPath(filepath.Join(folder, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("finding %s: %w", name, exec.ErrNotFound)
}

// Run runs a program to its end and returns its standard output. Its environment
// is PATH, HOME and env: a proxy or a login of this machine would be in the way.
// The error holds the command line and what the program wrote to its standard error.
func Run(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, env...)
	cmd.WaitDelay = time.Second
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s%s", cmd, err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// Daemon is a program that runs during a test.
type Daemon struct {
	name   string
	cmd    *exec.Cmd
	log    string
	exited chan struct{}
}

// Start runs cmd with its output in a file and returns once ready reports nil;
// ready is asked again and again, and given the output so far. The daemon and
// everything in its process group are ended with the test.
func Start(t testing.TB, name string, cmd *exec.Cmd, ready func(output string) error) *Daemon {
	t.Helper()
	d := &Daemon{name: name, cmd: cmd, log: filepath.Join(t.TempDir(), name+".log"), exited: make(chan struct{})}
	output, err := os.Create(d.log)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// A group of its own, so that what it starts is ended with it, and nothing else;
	// the signal, for a test that runs into its time limit and cleans nothing up.
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	go func() {
		// The exit status is no news: the daemon is either killed or fails the test.
		_ = cmd.Wait()
		close(d.exited)
	}()
	t.Cleanup(func() {
		d.Stop()
		if t.Failed() {
			d.keep(t)
		}
	})
	d.await(t, ready)
	return d
}

func (d *Daemon) await(t testing.TB, ready func(output string) error) {
	t.Helper()
	deadline := time.Now().Add(startLimit)
	for {
		err := ready(d.Output())
		if err == nil {
			return
		}
		select {
		case <-d.exited:
			t.Fatalf("%s ended at once: %v", d.name, err)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not ready after %s: %v", d.name, startLimit, err)
		}
	}
}

// Runs reports whether the daemon has not ended.
func (d *Daemon) Runs() bool {
	select {
	case <-d.exited:
		return false
	default:
		return true
	}
}

// Output returns what the daemon has written so far.
func (d *Daemon) Output() string {
	output, err := os.ReadFile(d.log)
	if err != nil {
		return ""
	}
	return string(output)
}

// Stop asks the daemon to end, waits, and kills it and its group if it does not.
func (d *Daemon) Stop() {
	d.signal(syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(stopLimit):
	}
	d.Kill()
}

// Kill ends the daemon and its group by SIGKILL and waits.
func (d *Daemon) Kill() {
	if err := syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		d.signal(syscall.SIGKILL)
	}
	<-d.exited
}

func (d *Daemon) signal(sig os.Signal) {
	select {
	case <-d.exited:
	default:
		// It may have ended between the two lines, which is what was wanted.
		_ = d.cmd.Process.Signal(sig)
	}
}

// keep copies the log of a failed test out of its folder, which is removed, and
// prints its end.
func (d *Daemon) keep(t testing.TB) {
	output := d.Output()
	folder := filepath.Join(os.TempDir(), "sidemirror-test-logs", strings.ReplaceAll(t.Name(), "/", "_"))
	path := filepath.Join(folder, d.name+".log")
	if err := errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(path, []byte(output), 0o644)); err != nil {
		t.Logf("keeping the log of %s: %v", d.name, err)
	}
	if len(output) > tail {
		output = "…" + output[len(output)-tail:]
	}
	t.Logf("%s (all of it in %s):\n%s", d.name, path, output)
}
