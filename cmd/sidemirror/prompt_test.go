package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newTerminal gives both ends of a pseudo-terminal.
func newTerminal(t *testing.T) (person, terminal *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this host has no pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	fd := int(person.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return person, terminal
}

func echoes(t *testing.T, terminal *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// waitForHidden waits until what is typed does not show any more.
func waitForHidden(t *testing.T, terminal *os.File) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); echoes(t, terminal); {
		if time.Now().After(deadline) {
			t.Fatal("the terminal still echoes")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestPasswordThatIsTypedDoesNotShow(t *testing.T) {
	person, terminal := newTerminal(t)
	if _, err := person.WriteString("me\n"); err != nil {
		t.Fatal(err)
	}
	var prompts bytes.Buffer
	done := make(chan error, 1)
	go func() {
		c, err := prompt{in: terminal, out: &prompts}.credential("", false)
		if err == nil && (c.Username != "me" || c.Password.Reveal() != "c4n4ry typed") {
			err = fmt.Errorf("read %q and %q", c.Username, c.Password.Reveal())
		}
		done <- err
	}()
	waitForHidden(t, terminal)
	if _, err := person.WriteString("c4n4ry typed\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := prompts.String(); got != "username: password: \n" {
		t.Errorf("prompts %q", got)
	}
	if !echoes(t, terminal) {
		t.Error("the terminal is left without echo")
	}
	shown := make([]byte, 4096)
	n, err := person.Read(shown)
	if err != nil || !strings.Contains(string(shown[:n]), "me") || strings.Contains(string(shown[:n]), "c4n4ry") {
		t.Errorf("the terminal shows %q, %v", shown[:n], err)
	}
}

func TestNewPasswordIsTypedTwice(t *testing.T) {
	for second, want := range map[string]string{"c4n4ry typed": "", "c4n4ry tiped": "the two passwords differ", "": "the two passwords differ"} {
		person, terminal := newTerminal(t)
		// A person may type the second one before the prompt shows: nothing of it is lost or echoed.
		done := make(chan error, 1)
		var prompts bytes.Buffer
		go func() {
			password, err := prompt{in: terminal, out: &prompts}.newPassword(false)
			if err == nil && password.Reveal() != "c4n4ry typed" {
				err = fmt.Errorf("read %q", password.Reveal())
			}
			done <- err
		}()
		waitForHidden(t, terminal)
		if _, err := person.WriteString("c4n4ry typed\n" + second + "\n"); err != nil {
			t.Fatal(err)
		}
		err := <-done
		if (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%q: %v, want %q", second, err, want)
		}
		if got := prompts.String(); got != "password: \nthe same password again: \n" {
			t.Errorf("prompts %q", got)
		}
		if !echoes(t, terminal) {
			t.Error("the terminal is left without echo")
		}
	}
}

func TestInterruptedPromptGivesTheTerminalItsEchoBack(t *testing.T) {
	h := newHost(t, "http://127.0.0.1:1", "")
	for _, number := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if signal.Ignored(number) { // the child inherits that, as under nohup
			continue
		}
		_, terminal := newTerminal(t)
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe, "--config", h.config, "login", h.registry, "-u", "me")
		cmd.Env = append(os.Environ(), commandEnv+"=1")
		cmd.Stdin = terminal
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitForHidden(t, terminal)
		if err := cmd.Process.Signal(number); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) {
			t.Fatalf("%v: ended with %v", number, err)
		}
		if status, ok := exit.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != number {
			t.Errorf("%v: ended with %v", number, exit)
		}
		if !echoes(t, terminal) {
			t.Errorf("%v: the terminal is left without echo", number)
		}
	}
}
