package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestEveryCommandAndFlagHasItsPage(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1000000000")
	folder := t.TempDir()
	command(t, 0, "man", folder)
	pages := 0
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		text, err := os.ReadFile(filepath.Join(folder, pageName(cmd)+".1"))
		if err != nil {
			t.Error(err)
			return
		}
		pages++
		wants(t, string(text), ".TH "+strings.ToUpper(pageName(cmd))+" 1 2001-09-09 ", ".SH NAME\n", ".SH SEE ALSO\n",
			".SH EXIT STATUS\n.TP\n.B \"0\"\n", ".SH ENVIRONMENT\n.TP\n.B ", ".SH FILES\n.TP\n.I ")
		for _, line := range strings.Split(cmd.Flags().FlagUsages(), "\n") {
			if _, name, ok := strings.Cut(line, "--"); ok {
				name, _, _ = strings.Cut(name, " ")
				wants(t, string(text), `\-\-`+strings.ReplaceAll(name, "-", `\-`))
			}
		}
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				check(sub)
			}
		}
	}
	check(newRootCommand())
	list, err := os.ReadDir(folder)
	if err != nil || len(list) != pages || pages < 15 {
		t.Errorf("%d pages, %d commands, %v", len(list), pages, err)
	}
}

func TestPagesSayWhatTheHelpSays(t *testing.T) {
	for text, want := range map[string]string{
		"One line.\n\nSecond -x.":               "One line.\n.PP\nSecond \\-x.",
		".dot and 'quote":                       `\&.dot and 'quote`,
		`back\slash, well-known --a-b`:          `back\eslash, well-known \-\-a\-b`,
		"As is:\n\n  a   b-c\n  .d":             "As is:\n.PP\n.nf\n  a   b\\-c\n  .d\n.fi",
		"A list:\n\n  - one\n    line\n  - two": "A list:\n.IP \\(bu 2\none line\n.IP \\(bu 2\ntwo",
		"see sidemirror-plan, pre-arranged":     "see sidemirror\\-plan, pre-arranged",
	} {
		if got := roffText(text, ""); got != want {
			t.Errorf("%q\ngot  %q\nwant %q", text, got, want)
		}
	}
}

func TestBuildTimeThatIsNone(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	_, stderr := command(t, 2, "man", t.TempDir())
	wants(t, stderr, "SOURCE_DATE_EPOCH", "yesterday")
}
