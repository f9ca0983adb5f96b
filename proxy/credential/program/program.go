// Package program runs credential helpers and credential provider plugins: other people's programs,
// which may hang, start more processes, or print without end, and which print secrets.
package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/credential"
)

const (
	// maxOutput bounds what a program may print. A login has a few kilobytes at most.
	maxOutput = 64 << 10
	// atOnce bounds the programs that run at the same time.
	atOnce = 8
	// drainTime is how long to wait for the end of the output of a program that has ended: a
	// process that left its group may still hold the pipe.
	drainTime = 200 * time.Millisecond
)

var grammar = lazyregexp.New(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// ValidName reports whether name can be the name of a helper or of a plugin.
func ValidName(name string) bool { return grammar().MatchString(name) }

// Runner runs programs from folders that only root and the daemon's user can write to.
type Runner struct {
	dirs  []string
	env   []string
	slots chan struct{}
}

// NewRunner returns a Runner for the programs in dirs, which are searched in this order. env is all
// of a program's environment.
func NewRunner(dirs, env []string) *Runner {
	return &Runner{dirs: dirs, env: env, slots: make(chan struct{}, atOnce)}
}

// Find returns the path of the program called name. The error is a problem with a hint.
func (r *Runner) Find(name string) (string, error) {
	if !ValidName(strings.TrimPrefix(name, "docker-credential-")) {
		return "", &problem.Problem{Code: "helper-name-invalid", Text: "the name of a credential helper or plugin is not valid", Hint: "use lower-case letters, digits, dots, dashes and underscores"}
	}
	for _, dir := range r.dirs {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			continue
		}
		return path, check(path)
	}
	return "", &problem.Problem{
		Code: "helper-missing", Text: fmt.Sprintf("%s is not installed in %s", name, strings.Join(r.dirs, " or ")),
		Hint: "install it there, or name its folder in the configuration",
	}
}

// check returns why path must not be run: another user could have put the program there.
func check(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return &problem.Problem{Code: "helper-unusable", Path: path, Text: "the program cannot be run", Err: err}
	}
	info, err := os.Stat(real)
	switch {
	case err != nil:
		return &problem.Problem{Code: "helper-unusable", Path: path, Text: "the program cannot be run", Err: err}
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return &problem.Problem{Code: "helper-unusable", Path: path, Text: "it is not a program", Hint: "chmod 0755 " + path}
	}
	for _, at := range append(parents(path), parents(real)...) {
		info, err := os.Stat(at)
		if err != nil {
			return &problem.Problem{Code: "helper-unusable", Path: at, Text: "the program cannot be run", Err: err}
		}
		if err := CheckOwner(at, info); err != nil {
			return err
		}
	}
	return nil
}

// CheckOwner returns why the file or folder at path, of which info is, must not be trusted: another
// user could exchange it. In a sticky folder others can add files, and not exchange those of root.
func CheckOwner(path string, info os.FileInfo) error {
	uid := info.Sys().(*syscall.Stat_t).Uid
	if uid != 0 && uid != uint32(os.Geteuid()) {
		return &problem.Problem{Code: "helper-unsafe", Path: path, Text: fmt.Sprintf("it belongs to uid %d, who could exchange it", uid), Hint: "chown root " + path}
	}
	sticky := info.IsDir() && info.Mode()&os.ModeSticky != 0
	if info.Mode().Perm()&0o022 != 0 && !sticky {
		return &problem.Problem{Code: "helper-unsafe", Path: path, Text: "other users can write to it", Hint: "chmod go-w " + path}
	}
	return nil
}

// parents returns path and every folder above it.
func parents(path string) []string {
	list := []string{path}
	for at := path; at != filepath.Dir(at); {
		at = filepath.Dir(at)
		list = append(list, at)
	}
	return list
}

// Command is one run of a program.
type Command struct {
	Name  string
	Args  []string
	Env   []string // in addition to the runner's
	Stdin []byte
	Limit time.Duration // how long it may take
}

// Output is what a program printed, which may be a secret even if it failed.
type Output struct {
	Text   credential.Secret
	Status int // its exit status; -1 if a signal ended it
}

// Run runs a program and returns what it printed. When it returns, the program and every process of
// its group have ended. The error says what went wrong and holds nothing of what was printed.
func (r *Runner) Run(ctx context.Context, c Command) (Output, error) {
	path, err := r.Find(c.Name)
	if err != nil {
		return Output{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Limit)
	defer cancel()
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return Output{}, failed(c, "waited too long for other helpers to end", "")
	}
	return r.run(ctx, path, c)
}

func (r *Runner) run(ctx context.Context, path string, c Command) (Output, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return Output{}, failed(c, "could not be started: "+err.Error(), "")
	}
	defer out.Close()
	cmd := exec.Command(path, c.Args...) //nolint:noctx // its whole group is killed below
	cmd.Env = append(append([]string{}, r.env...), c.Env...)
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(string(c.Stdin))
	cmd.Stdout = in
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = drainTime // for a process that left the group with the standard input
	err = cmd.Start()
	_ = in.Close()
	if err != nil {
		return Output{}, failed(c, "could not be started: "+err.Error(), "")
	}
	read := make(chan []byte, 1)
	tooMuch := make(chan struct{})
	go func() {
		text, _ := io.ReadAll(io.LimitReader(out, maxOutput+1))
		if len(text) > maxOutput {
			close(tooMuch)
		}
		read <- text
	}()
	why := watch(ctx, cmd.Process.Pid, tooMuch)
	// Wait returns the process to the kernel only now, so that its group had no other owner.
	waitErr := cmd.Wait()
	_ = out.SetReadDeadline(time.Now().Add(drainTime))
	text := <-read
	switch {
	case why != "":
		return Output{}, failed(c, why, "run it by hand to see what it waits for")
	case len(text) > maxOutput:
		return Output{}, failed(c, outputTooLong, "")
	}
	status := cmd.ProcessState.ExitCode()
	if waitErr != nil && status == 0 && !errors.Is(waitErr, exec.ErrWaitDelay) {
		return Output{}, failed(c, "did not read what it was asked", "")
	}
	return Output{Text: credential.NewSecret(string(text)), Status: status}, nil
}

var outputTooLong = fmt.Sprintf("printed more than %d KiB, which is no login", maxOutput>>10)

// watch waits for a program to end, to take too long or to print too much, and kills its group. It
// returns why it did not wait for the end.
func watch(ctx context.Context, pid int, tooMuch <-chan struct{}) (why string) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
	}()
	select {
	case <-ended:
	case <-tooMuch:
		why = outputTooLong
	case <-ctx.Done():
		why = "took too long, and was killed"
		if errors.Is(ctx.Err(), context.Canceled) {
			why = "was killed, because sidemirror ends or has another configuration"
		}
	}
	// The process is not reaped yet, so that no other group can have its number.
	_ = unix.Kill(-pid, unix.SIGKILL)
	<-ended
	return why
}

func failed(c Command, what, hint string) error {
	return &problem.Problem{Code: "helper-failed", Text: c.Name + " " + what, Hint: hint}
}
