// Command bench measures sidemirror next to nginx and distribution, on one machine and in one run,
// and says which of the numbers to reach it reaches.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// bench is one run.
type bench struct {
	report

	quick  bool
	dir    string // for all that the servers write
	logs   string // where the servers' lines go, "" for /dev/null
	binary string // sidemirror's
	user   string
	tools  tools
}

// figures by the names that -only takes, in the order in which they are measured.
var figures = []struct {
	name    string
	measure func(*bench, context.Context) error
}{
	{"start", (*bench).start100k},
	{"watch", (*bench).watch},
	{"memory", (*bench).memory},
	{"warm-blob", (*bench).warmBlob},
	{"warm-manifest", (*bench).warmManifest},
	{"cold-burst", (*bench).coldBurst},
	{"first-byte", (*bench).firstByte},
	{"pull", (*bench).pull},
}

// Bounds of a whole run.
const (
	longest      = 8 * time.Minute
	longestQuick = 2 * time.Minute
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	if len(os.Args) == 2 && os.Args[1] == clientWord {
		return clientMain(ctx)
	}
	b := &bench{}
	var names []string
	for _, f := range figures {
		names = append(names, f.name)
	}
	only := flag.String("only", strings.Join(names, ","), "measure these `figures` alone")
	out := flag.String("out", "", "write the results to this `file`; where all is measured and -quick is not given, RESULTS.md")
	in := flag.String("dir", "", "make the temporary folder in this `folder`, $TMPDIR by default")
	flag.BoolVar(&b.quick, "quick", false, "fewer rounds, in less than two minutes")
	flag.StringVar(&b.logs, "logs", "", "write what the servers print to files in this `folder` rather than to /dev/null")
	flag.StringVar(&b.binary, "binary", "", "measure this `program` rather than build sidemirror")
	booted := flag.Bool("booted", false, "measure booted systems instead, and write their section; needs root and what test/setup.sh installs")
	flag.Parse()
	if *booted {
		return runBooted(ctx, cmp.Or(*out, "RESULTS.md"))
	}
	if *out == "" && !b.quick && *only == strings.Join(names, ",") {
		*out = "RESULTS.md"
	}
	if b.dir, err = os.MkdirTemp(*in, "sidemirror-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	return b.run(ctx, strings.Split(*only, ","), *out)
}

func (b *bench) prepare(ctx context.Context) error {
	me, err := user.Current()
	if err != nil {
		return err
	}
	b.user = me.Username
	if b.tools, err = findTools(); err != nil {
		return err
	}
	if b.logs != "" {
		if b.logs, err = filepath.Abs(b.logs); err != nil {
			return err
		}
		return os.MkdirAll(b.logs, 0o700)
	}
	if b.binary != "" {
		b.binary, err = filepath.Abs(b.binary)
		return err
	}
	b.binary, err = build(ctx, b.dir)
	return err
}

// run measures the figures in only and writes the report to out, if that is not "".
func (b *bench) run(ctx context.Context, only []string, out string) error {
	begun := time.Now()
	limit := longest
	if b.quick {
		limit = longestQuick
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it takes longer than %v: the machine is too busy, or something hangs", limit))
	defer cancel()
	facts, before := b.facts(ctx), useNow()
	for _, f := range figures {
		if !slices.Contains(only, f.name) {
			continue
		}
		at, first := time.Now(), len(b.tables)
		if err := f.measure(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", f.name, errors.Join(err, context.Cause(ctx)))
		}
		for _, t := range b.tables[first:] {
			t.write(os.Stdout, false)
		}
		fmt.Printf("(%s, %.0f s)\n", f.name, time.Since(at).Seconds())
	}
	b.summary().write(os.Stdout, false)
	facts = append(facts, before.others())
	fmt.Printf("\n%s: %s\n", facts[len(facts)-1][0], facts[len(facts)-1][1])
	if out != "" {
		var text bytes.Buffer
		b.markdown(&text, facts, begun, time.Since(begun))
		if err := writeResults(out, text.Bytes()); err != nil {
			return err
		}
		fmt.Println("\nwritten to", out)
	}
	return b.missed()
}

// writeResults writes everything except the section of booted systems, which stays.
func writeResults(name string, text []byte) error {
	before, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(name, slices.Concat(text, bootedSection(before)), 0o644)
}

// rounds is how often each server has its turn.
func (b *bench) rounds() int {
	if b.quick {
		return 2
	}
	return 3
}
