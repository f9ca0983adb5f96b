package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// enginesLimit bounds the benchmarks of test/distant.
const enginesLimit = 10 * time.Minute

// enginePulls are the pulls of test/distant. bytes is how much more sidemirror may fetch than the
// engine itself does.
var enginePulls = []struct {
	engine, image string // as its benchmarks name them
	what          string
	bytes         float64
}{
	{"containerd", "layers", "20 layers of 2 MiB", 1.01},
	{"containerd", "large", "a layer of 64 MiB", 1.01},
	{"docker", "layers", "20 layers of 2 MiB", 1.01},
	{"docker", "large", "a layer of 64 MiB", 1.01},
	{"podman", "chunked", "a zstd:chunked layer of 31 MiB", 1.01},
	{"podman", "partial", "its next version, 5 of 100 files new", 2},
}

// enginePull is what one benchmark of test/distant measured.
type enginePull struct{ seconds, mebibytes, requests float64 }

// runEngines runs the benchmarks of test/distant and writes their section to out. binary, if not
// empty, is the program to measure.
func runEngines(ctx context.Context, binary, out string) error {
	ctx, cancel := context.WithTimeout(ctx, enginesLimit)
	defer cancel()
	begun := time.Now()
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkPulls$", "-benchtime", "1x", "-timeout", enginesLimit.String(), "./distant")
	cmd.Dir = "../test"
	cmd.Stderr = os.Stderr
	if binary != "" {
		binary, err := filepath.Abs(binary)
		if err != nil {
			return err
		}
		cmd.Env = append(os.Environ(), "SIDEMIRROR_BINARY="+binary)
	}
	text, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("the benchmarks of test/distant: %w\n%s", err, text)
	}
	r, err := judgeEngines(string(text))
	if err != nil {
		return err
	}
	var section bytes.Buffer
	note := fmt.Sprintf("`make bench-engines` wrote this section on %s in %.0f s: containerd 2.4 by CRI with parallel fetch on, Docker 29 and podman %s, "+
		"from a registry with TLS that is 50 ms away and gives each connection 16 MiB/s. Seconds are medians of three pulls, a new image each, and include the unpacking; bytes and requests are "+
		"the most that the registry had. Warm is the second pull of each, after the engine has forgotten the image.",
		begun.UTC().Format("2006-01-02 15:04 UTC"), time.Since(begun).Seconds(), podmanVersion(ctx))
	fmt.Fprintf(&section, "## %s\n\n%s\n\n", enginesTitle, wrap(note))
	r.all(&section, "###")
	for _, t := range append(r.tables, r.summary()) {
		t.write(os.Stdout, "")
	}
	if err := replaceSection(out, enginesTitle, section.Bytes()); err != nil {
		return err
	}
	return r.missed()
}

func podmanVersion(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "podman", "--version").Output()
	if err != nil {
		return err.Error()
	}
	words := strings.Fields(string(out))
	return words[len(words)-1]
}

var (
	engineLine   = regexp.MustCompile(`(?m)^BenchmarkPulls/(\w+-\w+-\w+)(?:-\d+)?\s+1\s+(.*)$`)
	engineMetric = regexp.MustCompile(`([0-9.e+-]+) (s|MiB|requests)(?:\s|$)`)
)

// judgeEngines reads what go test printed. Every figure must be there.
func judgeEngines(text string) (*report, error) {
	seen := make(map[string]enginePull)
	for _, m := range engineLine.FindAllStringSubmatch(text, -1) {
		var p enginePull
		to := map[string]*float64{"s": &p.seconds, "MiB": &p.mebibytes, "requests": &p.requests}
		metrics := engineMetric.FindAllStringSubmatch(m[2], -1)
		if len(metrics) != len(to) {
			return nil, fmt.Errorf("reading %q: %d figures, want %d", m[0], len(metrics), len(to))
		}
		for _, metric := range metrics {
			value, err := strconv.ParseFloat(metric[1], 64)
			if err != nil {
				return nil, fmt.Errorf("reading %q: %w", m[0], err)
			}
			*to[metric[2]] = value
		}
		seen[m[1]] = p
	}
	r := new(report)
	t := table{title: "Pulls by whole engines", head: []string{"engine", "image", "way", "time", "× direct", "from the registry", "requests"}}
	for _, e := range enginePulls {
		var of [3]enginePull
		for i, way := range []string{"direct", "through", "warm"} {
			name := e.engine + "-" + e.image + "-" + way
			p, ok := seen[name]
			if !ok && !(e.image == "chunked" && way == "warm") {
				return nil, fmt.Errorf("the benchmarks of test/distant printed no %s:\n%s", name, text)
			}
			if of[i] = p; !ok {
				continue
			}
			t.rows = append(t.rows, []string{e.engine, e.what, way, fmt.Sprintf("%.2f s", p.seconds),
				fmt.Sprintf("%.2f", p.seconds/of[0].seconds), fmt.Sprintf("%.1f MiB", p.mebibytes), fmt.Sprintf("%.0f", p.requests)})
		}
		direct, cold, warm := of[0], of[1], of[2]
		figure := e.engine + ", " + e.what
		r.judge(cold.seconds <= 1.05*direct.seconds, figure+", cold", "1.05 × direct", fmt.Sprintf("%.2f × (%.2f s to %.2f s)", cold.seconds/direct.seconds, cold.seconds, direct.seconds))
		// Headers and certificates, of a megabyte's size at most, are not content.
		r.judge(cold.mebibytes <= e.bytes*direct.mebibytes+1, figure+", bytes from the registry", fmt.Sprintf("%g × direct + 1 MiB", e.bytes),
			fmt.Sprintf("%.1f MiB to %.1f MiB", cold.mebibytes, direct.mebibytes))
		if e.image != "chunked" {
			r.judge(warm.requests <= 1, figure+", warm", "1 request", fmt.Sprintf("%.0f, in %.2f s", warm.requests, warm.seconds))
		}
	}
	r.tables = append(r.tables, t)
	return r, nil
}
