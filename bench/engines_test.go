package main

import (
	"fmt"
	"strings"
	"testing"
)

func enginesOutput(without string) string {
	var b strings.Builder
	b.WriteString("goos: linux\ncpu: Some Processor\n")
	for _, e := range enginePulls {
		for way, seconds := range map[string]float64{"direct": 2, "through": 1, "warm": 0.2} {
			if name := e.engine + "-" + e.image + "-" + way; name != without {
				fmt.Fprintf(&b, "BenchmarkPulls/%s-2         \t       1\t        40.11 MiB\t         1.000 requests\t         %.3f s\n", name, seconds)
			}
		}
	}
	return b.String() + "PASS\n"
}

func TestPullsOfWholeEnginesAreJudged(t *testing.T) {
	r, err := judgeEngines(enginesOutput(""))
	if err != nil || r.missed() != nil || len(r.tables) != 1 || len(r.tables[0].rows) != 3*len(enginePulls) {
		t.Fatalf("%+v, %v", r, err)
	}
	if row := strings.Join(r.tables[0].rows[1], "|"); row != "containerd|20 layers of 2 MiB|through|1.00 s|0.50|40.1 MiB|1" {
		t.Errorf("a row is %s", row)
	}
	for old, worse := range map[string]string{"1.000 s": "2.200 s", "40.11 MiB\t         1.000 requests\t         1.000 s": "90.11 MiB\t 1 requests\t 1.0 s", "1.000 requests\t         0.200 s": "2 requests\t 0.2 s"} {
		if r, err := judgeEngines(strings.ReplaceAll(enginesOutput(""), old, worse)); err != nil || r.missed() == nil {
			t.Errorf("%q in place of %q passes: %v", worse, old, err)
		}
	}
	for _, name := range []string{"docker-large-warm", "podman-partial-through"} {
		if _, err := judgeEngines(enginesOutput(name)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	if _, err := judgeEngines(strings.ReplaceAll(enginesOutput(""), " MiB", " MB")); err == nil {
		t.Error("a line without its bytes passes")
	}
}
