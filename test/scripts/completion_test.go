package scripts_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/registry"
)

// A shell, and the file that it reads at its start. The file makes it complete sidemirror's commands,
// and append the line that is typed to $LINES_FILE when Ctrl-G is pressed.
type shell struct {
	name    string
	command []string // $HOME stands for its home
	file    string   // below its home
	text    string
}

var shells = []shell{
	{
		"bash", []string{"bash", "--noprofile", "--rcfile", "$HOME/rc", "-i"}, "rc",
		`. /usr/share/bash-completion/bash_completion
source <(sidemirror completion bash)
bind -x '"\C-g": printf "%s\n" "$READLINE_LINE" >>"$LINES_FILE"'
`,
	},
	{
		"zsh", []string{"zsh", "-i"}, ".zshrc",
		`autoload -Uz compinit && compinit -u
source <(sidemirror completion zsh)
write-line() { print -r -- "$BUFFER" >>"$LINES_FILE" }
zle -N write-line && bindkey '^G' write-line
`,
	},
	{
		"fish", []string{"fish", "-i"}, ".config/fish/config.fish",
		`sidemirror completion fish | source
bind \cg 'commandline >>$LINES_FILE'
`,
	},
}

// Each shell runs on a terminal of its own and completes what is typed, as for a person.
func TestShellsCompleteNames(t *testing.T) {
	t.Parallel()
	upstream := registry.Start(t, registry.Options{})
	upstream.Push(t, "alice/app", "v1", registry.Shape{Size: 1 << 12})
	daemon := harness.Start(t, harness.Options{Registries: []harness.Registry{{Name: "r.test", Upstreams: []string{upstream.URL.String()}}}})
	bin := t.TempDir()
	if err := os.Symlink(harness.Binary(t), filepath.Join(bin, "sidemirror")); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"),
		"SIDEMIRROR_CONFIG="+filepath.Join(daemon.Dir(), "config.toml"), "TERM=xterm", "LC_ALL=C.UTF-8")
	prepare := func(input string, args ...string) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "sidemirror"), args...)
		cmd.Env, cmd.Stdin = env, strings.NewReader(input)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	prepare("", "pull", "r.test/alice/app:v1")
	prepare("secret", "login", upstream.URL.Host, "-u", "me", "--password-stdin")
	for _, s := range shells {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			typed := s.start(t, env)
			for _, c := range []struct{ before, after string }{
				{"sidemirror stat", "sidemirror status "},
				{"sidemirror cache pru", "sidemirror cache prune "},
				{"sidemirror status --js", "sidemirror status --json "},
				{"sidemirror help cache ver", "sidemirror help cache verify "},
				{"sidemirror cache shared ch", "sidemirror cache shared check "},
				{"sidemirror completion fi", "sidemirror completion fish "},
				{"sidemirror apply --engine con", "sidemirror apply --engine containerd "},
				{"sidemirror apply --engine docker,co", "sidemirror apply --engine docker,containerd "},
				{"sidemirror login gh", "sidemirror login ghcr.io "},
				{"sidemirror logout 127", "sidemirror logout " + upstream.URL.Host + " "},
				{"sidemirror pull quay", "sidemirror pull quay.io/"},
				{"sidemirror cache rm r.te", "sidemirror cache rm r.test/alice/app:v1 "},
				{"sidemirror cache ls r.test/alice/app:", "sidemirror cache ls r.test/alice/app:v1 "},
				{"sidemirror pull --platform linux/risc", "sidemirror pull --platform linux/riscv64 "},
				{"sidemirror pull --platform linux/amd64,linux/s3", "sidemirror pull --platform linux/amd64,linux/s390x "},
				{"sidemirror cache prune --older-than 2", "sidemirror cache prune --older-than 2w "},
				{"sidemirror config check oth", "sidemirror config check other.toml "},
				{"sidemirror plan --root fold", "sidemirror plan --root folder/"},
				{"sidemirror version oth", "sidemirror version oth"},
			} {
				// bash writes a comma with a backslash.
				if got := typed(c.before); strings.ReplaceAll(got, `\,`, ",") != c.after {
					t.Errorf("%q is completed to %q, want %q", c.before, got, c.after)
				}
			}
		})
	}
}

// start starts the shell, and returns a function that types a text on an empty line, presses the
// tabulator key, and returns the line.
func (s shell) start(t *testing.T, env []string) func(text string) string {
	t.Helper()
	home, folder := t.TempDir(), t.TempDir()
	lines := filepath.Join(home, "lines")
	rc := filepath.Join(home, s.file)
	err := errors.Join(os.MkdirAll(filepath.Dir(rc), 0o755), os.WriteFile(rc, []byte(s.text), 0o644),
		os.Mkdir(filepath.Join(folder, "folder"), 0o755), os.WriteFile(filepath.Join(folder, "other.toml"), nil, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	args := make([]string, len(s.command))
	for i, arg := range s.command {
		args[i] = strings.ReplaceAll(arg, "$HOME", home)
	}
	person, terminal := openTerminal(t)
	cmd := exec.CommandContext(t.Context(), process.Path(t, args[0]), args[1:]...)
	cmd.Dir = folder
	cmd.Env = append(env[:len(env):len(env)], "HOME="+home, "ZDOTDIR="+home, "XDG_CONFIG_HOME="+filepath.Join(home, ".config"), "LINES_FILE="+lines)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = terminal.Close()
	screen := make(chan struct{})
	go func() {
		defer close(screen)
		_, _ = io.Copy(io.Discard, person) // a full terminal would stop the shell
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = person.Close()
		<-screen
	})
	count := 0
	press := func(keys string) string {
		if _, err := io.WriteString(person, keys); err != nil {
			t.Fatal(err)
		}
		count++
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			data, err := os.ReadFile(lines)
			if all := strings.Split(string(data), "\n"); err == nil && len(all) > count {
				return all[count-1]
			}
			if time.Now().After(end) {
				t.Fatalf("the shell did not write line %d; it wrote %q, %v", count, data, err)
			}
		}
	}
	press("\x07") // what is typed before the shell has read its file waits on the terminal
	return func(text string) string { return press("\x15" + text + "\t\x07") }
}

// openTerminal returns both ends of a pseudo-terminal.
func openTerminal(t *testing.T) (person, terminal *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	number := 0
	control, err := person.SyscallConn()
	if err == nil {
		err = errors.Join(control.Control(func(fd uintptr) {
			if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
				number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
			}
			err = errors.Join(err, unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: 200, Row: 50}))
		}), err)
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return person, terminal
}
