// Command bench measures sidemirror next to nginx and distribution, on one machine and in one run,
// and reports which of the numbers to reach it reaches.
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

	environment []string // of sidemirror, in addition
	user        string
	tools       tools
}

// figure is something to measure. measure adds tables and verdicts to the bench.
type figure struct {
	name    string // that -only takes
	measure func(*bench, context.Context) error
}

// suite is what one target measures, in this order, and the part of RESULTS.md that it writes.
type suite struct {
	title   string // of a section, "" for the part before all sections
	figures []figure
	limit   time.Duration // of a whole run
}

var sideBySide = suite{
	figures: []figure{
		{"start", (*bench).start100k},
		{"watch", (*bench).watch},
		{"page", (*bench).firstPaint},
		{"memory", (*bench).memory},
		{"warm-blob", (*bench).warmBlob},
		{"warm-manifest", (*bench).warmManifest},
		{"cold-burst", (*bench).coldBurst},
		{"first-byte", (*bench).firstByte},
		{"pull", (*bench).pull},
		{"cold-blob", (*bench).coldBlob},
		{"lazy", (*bench).lazy},
		{"hung-mirror", (*bench).hungMirror},
		{"slow-mirror", (*bench).slowMirror},
		{"herd", (*bench).herd},
	},
	limit: 15 * time.Minute,
}

var growth = suite{
	title: growthTitle,
	figures: []figure{
		{"clients", (*bench).growingClients},
		{"blob-size", (*bench).growingBlobs},
		{"layers", (*bench).growingImages},
		{"cache", (*bench).growingCache},
	},
	limit: 40 * time.Minute,
}

// names returns the figures' names.
func (s suite) names() []string {
	var names []string
	for _, f := range s.figures {
		names = append(names, f.name)
	}
	return names
}

// only returns the suite with these figures alone.
func (s suite) only(names []string) (suite, error) {
	for _, name := range names {
		if !slices.Contains(s.names(), name) {
			return suite{}, fmt.Errorf("there is no figure %q; these are: %s", name, strings.Join(s.names(), ", "))
		}
	}
	s.figures = slices.DeleteFunc(slices.Clone(s.figures), func(f figure) bool { return !slices.Contains(names, f.name) })
	return s, nil
}

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
	only := flag.String("only", "", "measure these `figures` alone, separated by commas")
	out := flag.String("out", "", "write the results to this `file`; RESULTS.md if everything is measured without -quick")
	in := flag.String("dir", "", "make the temporary folder in this `folder`, $TMPDIR by default")
	flag.BoolVar(&b.quick, "quick", false, "fewer rounds and smaller blobs")
	flag.StringVar(&b.logs, "logs", "", "write what the servers print to files in this `folder` instead of /dev/null")
	flag.StringVar(&b.binary, "binary", "", "measure this `program` instead of building sidemirror")
	grow := flag.Bool("growth", false, "measure how the cost grows with the work instead, and write that section")
	engines := flag.Bool("engines", false, "measure pulls by whole engines instead, and write that section; needs root and what test/setup.sh installs")
	booted := flag.Bool("booted", false, "measure booted systems instead, and write that section; needs root and what test/setup.sh installs")
	profile := flag.String("profile", "", "measure nothing, and write a profile for the compiler to this `file`: make pgo")
	flag.Parse()
	if *booted {
		return runBooted(ctx, cmp.Or(*out, "RESULTS.md"))
	}
	if *engines {
		return runEngines(ctx, b.binary, cmp.Or(*out, "RESULTS.md"))
	}
	s := sideBySide
	if *grow {
		s = growth
	}
	if *out == "" && !b.quick && *only == "" {
		*out = "RESULTS.md"
	}
	if *only != "" {
		if s, err = s.only(strings.Split(*only, ",")); err != nil {
			return err
		}
	}
	if b.dir, err = os.MkdirTemp(*in, "sidemirror-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if *profile != "" {
		return b.writeProfile(ctx, *profile)
	}
	return b.run(ctx, s, *out)
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
		if err = os.MkdirAll(b.logs, 0o700); err != nil {
			return err
		}
	}
	if err = b.checkRoom(); err != nil {
		return err
	}
	if b.binary != "" {
		b.binary, err = filepath.Abs(b.binary)
		return err
	}
	b.binary, err = build(ctx, b.dir)
	return err
}

// run measures a suite and writes the report to out, if that is not "".
func (b *bench) run(ctx context.Context, s suite, out string) error {
	begun := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("it takes longer than %v: the machine is too busy, or something hangs", s.limit))
	defer cancel()
	facts, before := b.facts(ctx), useNow()
	for _, f := range s.figures {
		at, first := time.Now(), len(b.tables)
		if err := f.measure(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", f.name, errors.Join(err, context.Cause(ctx)))
		}
		for _, t := range b.tables[first:] {
			t.write(os.Stdout, "")
		}
		fmt.Printf("(%s, %.0f s)\n", f.name, time.Since(at).Seconds())
	}
	b.summary().write(os.Stdout, "")
	facts = append(facts, before.others())
	fmt.Printf("\n%s: %s\n", facts[len(facts)-1][0], facts[len(facts)-1][1])
	if out != "" {
		if err := b.save(out, s.title, facts, begun); err != nil {
			return err
		}
		fmt.Println("\nwritten to", out)
	}
	return b.missed()
}

// save writes the report to its part of a file of results.
func (b *bench) save(name, title string, facts [][2]string, begun time.Time) error {
	var text bytes.Buffer
	if title == "" {
		b.markdown(&text, facts, begun, time.Since(begun))
		return replaceFirst(name, text.Bytes())
	}
	b.section(&text, title, facts, begun, time.Since(begun))
	return replaceSection(name, title, text.Bytes())
}

// rounds is how often each server has its turn.
func (b *bench) rounds() int {
	if b.quick {
		return 2
	}
	return 3
}
