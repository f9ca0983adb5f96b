package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func bootedOutput(without string) string {
	var b strings.Builder
	b.WriteString("goos: linux\nBenchmarkBooted\n")
	for _, f := range bootedFigures {
		if f.name != without {
			b.WriteString("BenchmarkBooted/" + f.name + "-2         \t       1\t         0.05000 s\n")
		}
	}
	return b.String() + "PASS\n"
}

func TestFiguresOfBootedSystemsAreJudged(t *testing.T) {
	r, err := judgeBooted(bootedOutput(""))
	if err != nil || len(r.verdicts) != len(bootedFigures) || r.missed() != nil {
		t.Errorf("%+v, %v", r, err)
	}
	slow := strings.Replace(bootedOutput(""), "boot-2         \t       1\t         0.05000 s", "boot \t 1 \t 0.3 s", 1)
	if r, err := judgeBooted(slow); err != nil || r.missed() == nil {
		t.Errorf("a boot that is slower passes: %+v, %v", r, err)
	}
	if _, err := judgeBooted(bootedOutput("hung")); err == nil || !strings.Contains(err.Error(), "hung") {
		t.Errorf("a figure that is not there: %v", err)
	}
}

func TestASectionIsReplacedAndTheRestKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "RESULTS.md")
	first, second := table{title: bootedTitle, head: []string{"one"}}, table{title: bootedTitle, head: []string{"two"}}
	if err := os.WriteFile(file, []byte("# Results\n\nText.\n\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, section := range []table{first, second} {
		if err := replaceBooted(file, section); err != nil {
			t.Fatal(err)
		}
	}
	var want bytes.Buffer
	second.write(&want, true)
	got, err := os.ReadFile(file)
	if err != nil || string(got) != "# Results\n\nText.\n\n"+want.String() {
		t.Errorf("%q, %v", got, err)
	}
	// A run of everything else leaves it as it is.
	var whole bytes.Buffer
	new(report).markdown(&whole, nil, time.Now(), 0)
	if err := writeResults(file, whole.Bytes()); err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(file)
	if err != nil || string(again) != whole.String()+want.String() {
		t.Errorf("%q, %v", again, err)
	}
}
