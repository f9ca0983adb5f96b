package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// bootedLimit bounds the benchmarks of test/boot.
const bootedLimit = 15 * time.Minute

// bootedFigures are the benchmarks of test/boot, and how many seconds each may take at most.
var bootedFigures = []struct {
	name, what string
	most       float64
}{
	{"boot", "a boot with sidemirror, longer than one without", 0.1},
	{"installation", "the package is installed and both engines are configured", 5},
	{"engine-installed-later", "Docker is configured after its installation", 5},
	{"entry-put-back", "an entry that another program removed is back", 2},
	{"configuration-repaired", "a repaired configuration is in force", 2},
	{"killed", "a proxy that was killed is replaced", 1},
	{"hung", "a proxy that hangs is replaced", 2},
	{"direct-pull", "the slower of a pull by Docker and one by CRI without sidemirror", 5},
	{"pull-while-stopped", "the same with sidemirror stopped", 5},
}

var bootedLine = regexp.MustCompile(`(?m)^BenchmarkBooted/(\S+?)(?:-\d+)?\s+1\s.*?(-?[0-9.e-]+) s(?:\s|$)`)

// runBooted runs the benchmarks of test/boot and writes their section to out.
func runBooted(ctx context.Context, out string) error {
	ctx, cancel := context.WithTimeout(ctx, bootedLimit)
	defer cancel()
	begun := time.Now()
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkBooted$", "-benchtime", "1x", "-timeout", bootedLimit.String(), "./boot")
	cmd.Dir = "../test"
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("the benchmarks of test/boot: %w\n%s", err, text)
	}
	r, err := judgeBooted(string(text))
	if err != nil {
		return err
	}
	t := r.summary()
	t.title = bootedTitle
	t.note = fmt.Sprintf("`make bench-boot` wrote this section on %s in %.0f s: a trixie with systemd 257, Docker 26.1, containerd 1.7, podman 5.4 and BuildKit 0.34, booted in a container.",
		begun.UTC().Format("2006-01-02 15:04 UTC"), time.Since(begun).Seconds())
	t.write(os.Stdout, "")
	var section bytes.Buffer
	t.write(&section, "##")
	if err := replaceSection(out, bootedTitle, section.Bytes()); err != nil {
		return err
	}
	return r.missed()
}

// judgeBooted reads what go test printed. Every figure must be there.
func judgeBooted(text string) (*report, error) {
	seen := make(map[string]float64)
	for _, m := range bootedLine.FindAllStringSubmatch(text, -1) {
		value, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return nil, fmt.Errorf("reading %q: %w", m[0], err)
		}
		seen[m[1]] = value
	}
	r := new(report)
	for _, f := range bootedFigures {
		value, ok := seen[f.name]
		if !ok {
			return nil, fmt.Errorf("the benchmarks of test/boot printed no %s:\n%s", f.name, text)
		}
		r.judge(value <= f.most, f.what, fmt.Sprintf("%g s", f.most), fmt.Sprintf("%.2f s", value))
	}
	if err := judgeFaults(r, seen); err != nil {
		return nil, fmt.Errorf("%w:\n%s", err, text)
	}
	return r, nil
}
