package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// load is what wrk reports.
type load struct {
	rate     float64 // requests/s
	p50, p99 time.Duration
	cpu      time.Duration // the server's, for each request
}

// warmManifest is requests/s for a manifest by its digest.
func (b *bench) warmManifest(ctx context.Context) error {
	names := []string{nginxCache, registry, registryPull, sidemirror}
	img := newImage("v1", 20, mib)
	f, err := b.fleet(ctx, []*image{img}, names...)
	if err != nil {
		return err
	}
	defer f.stop()
	if err := f.warm(ctx, "manifests", img.manifest); err != nil {
		return err
	}
	const connections, threads = 64, 2
	lasting := 5 * time.Second
	if b.quick {
		lasting = time.Second
	}
	all := map[string][]load{}
	// By tag is for orientation: distribution and sidemirror both ask upstream then.
	byTag := []string{registryPull + ", by tag", sidemirror + ", by tag"}
	rows := append(names, byTag...)
	for range b.rounds() {
		for _, row := range rows {
			name, what := row, img.manifest.digest
			if of, tagged := strings.CutSuffix(row, ", by tag"); tagged {
				name, what = of, img.tag
			}
			s := f.servers[name]
			l, err := b.wrk(ctx, s, s.path("manifests", what), connections, threads, lasting)
			if err != nil {
				return err
			}
			all[row] = append(all[row], l)
		}
	}
	t := table{
		title: "Warm manifest by digest",
		note: fmt.Sprintf("A manifest of %d bytes; wrk with %d connections and %d threads for %v; medians of %d rounds. By tag, for which both ask the upstream each time, is for orientation.",
			img.manifest.size, connections, threads, lasting, b.rounds()),
		head: []string{"server", "requests/s", "p50", "p99", "CPU µs/request"},
	}
	rates, p99s := map[string]float64{}, map[string]time.Duration{}
	for _, row := range rows {
		var rate []float64
		var p50, p99, cpu []time.Duration
		for _, l := range all[row] {
			rate, p50, p99, cpu = append(rate, l.rate), append(p50, l.p50), append(p99, l.p99), append(cpu, l.cpu)
		}
		rates[row], p99s[row] = median(rate), median(p99)
		t.rows = append(t.rows, []string{
			row, fmt.Sprintf("%.0f", rates[row]), millis(median(p50)), millis(p99s[row]),
			fmt.Sprintf("%.0f", float64(median(cpu))/float64(time.Microsecond)),
		})
	}
	b.tables = append(b.tables, t)
	rate, theirs := rates[sidemirror], rates[nginxCache]
	b.judge(rate >= 0.75*theirs, "warm manifest, requests/s", "0.75 × nginx proxy_cache", fmt.Sprintf("%.2f × (%.0f to %.0f)", rate/theirs, rate, theirs))
	late, theirLate := p99s[sidemirror], p99s[nginxCache]
	b.judge(0.75*float64(late) <= float64(theirLate), "warm manifest, p99", "nginx proxy_cache's / 0.75",
		fmt.Sprintf("%.2f × (%s to %s)", float64(late)/float64(theirLate), millis(late), millis(theirLate)))
	return nil
}

var (
	wrkRate  = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	wrkCount = regexp.MustCompile(`(\d+) requests in`)
	wrkP50   = regexp.MustCompile(`50%\s+([0-9.]+[a-z]+)`)
	wrkP99   = regexp.MustCompile(`99%\s+([0-9.]+[a-z]+)`)
	wrkFault = regexp.MustCompile(`(?m)^.*(Socket errors|Non-2xx).*$`)
)

func (b *bench) wrk(ctx context.Context, s *server, path string, connections, threads int, lasting time.Duration) (load, error) {
	before, err := s.cpu()
	if err != nil {
		return load{}, err
	}
	out, err := exec.CommandContext(ctx, b.tools.wrk, "--latency", "-c", strconv.Itoa(connections), "-t", strconv.Itoa(threads),
		"-d", fmt.Sprintf("%.0fs", lasting.Seconds()), "-H", "Accept: "+manifestType, "http://"+s.address+path).CombinedOutput()
	if err != nil {
		return load{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	after, err := s.cpu()
	if err != nil {
		return load{}, err
	}
	if fault := wrkFault.Find(out); fault != nil {
		return load{}, fmt.Errorf("%s under wrk: %s", s.name, fault)
	}
	var texts [4]string
	for i, p := range []*regexp.Regexp{wrkRate, wrkCount, wrkP50, wrkP99} {
		m := p.FindSubmatch(out)
		if m == nil {
			return load{}, fmt.Errorf("reading what wrk printed:\n%s", out)
		}
		texts[i] = string(m[1])
	}
	var l load
	var count float64
	for i, to := range []*float64{&l.rate, &count} {
		if *to, err = strconv.ParseFloat(texts[i], 64); err != nil {
			return load{}, err
		}
	}
	for i, to := range []*time.Duration{&l.p50, &l.p99} {
		if *to, err = time.ParseDuration(texts[2+i]); err != nil {
			return load{}, err
		}
	}
	l.cpu = time.Duration(float64(after-before) / count)
	return l, nil
}
