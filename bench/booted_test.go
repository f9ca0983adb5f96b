package main

import (
	"strings"
	"testing"
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
