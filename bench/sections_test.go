package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEachTargetReplacesItsOwnPartOfTheResults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "RESULTS.md")
	const first = "# Results\n\n## A figure\n\nText.\n"
	section := func(title, text string) string {
		return "## " + title + "\n\n" + text + "\n\n### A part of it\n\nMore.\n"
	}
	steps := []struct {
		title, text string
		want        string
	}{
		{bootedTitle, section(bootedTitle, "old"), section(bootedTitle, "old")},
		{"", first, first + "\n" + section(bootedTitle, "old")},
		{growthTitle, section(growthTitle, "one"), first + "\n" + section(growthTitle, "one") + "\n" + section(bootedTitle, "old")},
		{bootedTitle, section(bootedTitle, "new"), first + "\n" + section(growthTitle, "one") + "\n" + section(bootedTitle, "new")},
		{enginesTitle, section(enginesTitle, "e"), first + "\n" + section(growthTitle, "one") + "\n" + section(enginesTitle, "e") + "\n" + section(bootedTitle, "new")},
		{"", "# Results\n", "# Results\n\n" + section(growthTitle, "one") + "\n" + section(enginesTitle, "e") + "\n" + section(bootedTitle, "new")},
	}
	for i, step := range steps {
		replace := func() error { return replaceSection(file, step.title, []byte(step.text)) }
		if step.title == "" {
			replace = func() error { return replaceFirst(file, []byte(step.text)) }
		}
		if err := replace(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if err != nil || string(got) != step.want {
			t.Fatalf("after step %d: %q, %v, want %q", i, got, err, step.want)
		}
	}
}

func TestTheResultsInTheRepositoryStayAsTheyAre(t *testing.T) {
	before, err := os.ReadFile("RESULTS.md")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "RESULTS.md")
	if err := parseResults(string(before)).write(file); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(file)
	if err != nil || string(after) != string(before) {
		t.Errorf("%d bytes became %d, %v", len(before), len(after), err)
	}
}

func TestANumberThatIsNotReachedHasItsReason(t *testing.T) {
	var r report
	r.judge(false, "first byte of a cold blob", "1", "2")
	r.judge(true, "warm manifest, p99", "1", "1")
	r.judge(false, "of which nothing is known", "1", "2")
	var b strings.Builder
	r.all(&b, "##")
	if text := b.String(); strings.Count(text, "\n- Not reached: ") != 1 || !strings.Contains(text, "\n- Not reached: first byte of a cold blob: sidemirror looks up") {
		t.Errorf("got\n%s", text)
	}
}
