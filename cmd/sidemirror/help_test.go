package main

import (
	"context"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// each calls f for every command that a person sees.
func each(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			each(sub, f)
		}
	}
}

func TestHelpFitsEightyColumns(t *testing.T) {
	each(newRootCommand(), func(cmd *cobra.Command) {
		out, _ := command(t, 0, append(strings.Fields(cmd.CommandPath())[1:], "--help")...)
		for i, line := range strings.Split(out, "\n") {
			if n := utf8.RuneCountInString(line); n > helpWidth {
				t.Errorf("%s: line %d has %d columns: %s", cmd.CommandPath(), i+1, n, line)
			}
		}
	})
}

// On a narrow terminal only what must stay whole may be wider: examples, and words.
func TestHelpFollowsTheWidthOfTheTerminal(t *testing.T) {
	for _, width := range []int{40, 60, 132} {
		out := onTerminal(t, 0, width, "watch", "--help")
		prose, _, found := strings.Cut(out, "Examples:")
		widest := 0
		for line := range strings.SplitSeq(prose, "\n") {
			widest = max(widest, utf8.RuneCountInString(line))
		}
		if !found || widest > width || widest < width-15 {
			t.Errorf("at %d columns the widest line has %d:\n%s", width, widest, out)
		}
	}
}

func TestProblemsAreWrappedOnATerminalAndHintsAreNot(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	root := tree(t, map[string]string{"etc/docker/daemon.json": "{\n  // a comment\n}\n"})
	const width = 60
	out := onTerminal(t, exitFailed, width, "plan", "--root", root, "--engine", "docker")
	problems := 0
	for line := range strings.SplitSeq(out, "\n") {
		if strings.HasPrefix(line, "problem: ") || strings.HasPrefix(line, "note: ") {
			problems++
			if utf8.RuneCountInString(line) > width {
				t.Errorf("a line of a problem is wider than %d: %s", width, line)
			}
		}
	}
	if problems == 0 || !strings.Contains(out, "\nhint: remove the comment; dockerd does not start with it\n") {
		t.Errorf("no problem is shown, or its hint is not on one line:\n%s", out)
	}
}

// onTerminal runs the command line with a terminal of that width as standard output, and wants an exit
// code.
func onTerminal(t *testing.T, want, width int, args ...string) string {
	t.Helper()
	t.Setenv("TERM", "xterm")
	master, terminal := newTerminal(t)
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(width), Row: 24}); err != nil {
		t.Fatal(err)
	}
	text := make(chan string)
	go func() {
		var b strings.Builder
		_, _ = master.WriteTo(&b) // until the terminal is closed, which is an error on Linux
		text <- b.String()
	}()
	if code := run(context.Background(), args, strings.NewReader(""), terminal, terminal); code != want {
		t.Errorf("exit %d, want %d", code, want)
	}
	_ = terminal.Close()
	return strings.ReplaceAll(<-text, "\r\n", "\n")
}

func TestWrappingKeepsListsAndExamples(t *testing.T) {
	text := "A sentence that is\nbroken at another width.\n\n  - one item of a list that is long\n    and goes on\n  - two\n\n  verbatim   text  that stays as it is\n\nA-word-that-is-longer-than-the-line here."
	want := "A sentence that is\nbroken at another\nwidth.\n\n  - one item of a\n    list that is\n    long and goes on\n  - two\n\n  verbatim   text  that stays as it is\n\nA-word-that-is-longer-than-the-line\nhere.\n"
	if got := wrapText(text, 20); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Commands that run in the foreground write a log, and scripts are no result.
func TestEveryCommandWithAResultPrintsJSON(t *testing.T) {
	without := map[string]bool{"serve": true, "watch": true, "completion": true, "help": true}
	each(newRootCommand(), func(cmd *cobra.Command) {
		if cmd.HasAvailableSubCommands() || without[cmd.Name()] {
			return
		}
		if cmd.Flag("json") == nil {
			t.Errorf("%s has no --json", cmd.CommandPath())
		}
	})
}
