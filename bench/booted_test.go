package main

import (
	"strings"
	"testing"
)

func bootedOutput(without string) string {
	var b strings.Builder
	b.WriteString("goos: linux\nBenchmarkBooted\n")
	var names []string
	for _, f := range bootedFigures {
		names = append(names, f.name)
	}
	for _, f := range bootedFaults {
		for _, e := range bootedEngines {
			names = append(names, longer(f.name, e))
		}
	}
	for _, name := range names {
		if name != without {
			b.WriteString("BenchmarkBooted/" + name + "-2         \t       1\t         0.05000 s\n")
		}
	}
	return b.String() + "PASS\n"
}

func TestFiguresOfBootedSystemsAreJudged(t *testing.T) {
	r, err := judgeBooted(bootedOutput(""))
	if err != nil || len(r.verdicts) != len(bootedFigures)+len(bootedFaults) || r.missed() != nil {
		t.Errorf("%+v, %v", r, err)
	}
	slow := strings.Replace(bootedOutput(""), "boot-2         \t       1\t         0.05000 s", "boot \t 1 \t 0.3 s", 1)
	if r, err := judgeBooted(slow); err != nil || r.missed() == nil {
		t.Errorf("a boot that is slower passes: %+v, %v", r, err)
	}
	late := strings.Replace(bootedOutput(""), "longer-hung-podman-2         \t       1\t         0.05000 s", "longer-hung-podman \t 1 \t 1.5 s", 1)
	if r, err := judgeBooted(late); err != nil || r.missed() == nil {
		t.Errorf("an engine that waits for a proxy that hangs passes: %+v, %v", r, err)
	}
	early := strings.ReplaceAll(bootedOutput(""), "0.05000 s", "-0.05000 s")
	if r, err := judgeBooted(early); err != nil || r.missed() != nil {
		t.Errorf("pulls that are quicker do not pass: %+v, %v", r, err)
	}
	for _, missing := range []string{"hung", "longer-hung-podman"} {
		if _, err := judgeBooted(bootedOutput(missing)); err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("a figure that is not there: %v", err)
		}
	}
}
