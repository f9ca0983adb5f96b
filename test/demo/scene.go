package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// scene is the demo's testing.TB, for the parts of the test module that it is made
// from: their failures end it, their cleanups run when it ends.
type scene struct {
	testing.TB // what is not below is not used; it is nil

	*paint
	ctx      context.Context
	cleanups []func()
	began    time.Time
	chapters int
	failed   bool
}

// ended is the panic by which Fatal leaves the story.
type ended struct{ reason string }

// play runs a story and returns the exit code: 0, or 1 where a check failed.
func play(ctx context.Context, p *paint, story func(*scene)) int {
	s := &scene{paint: p, ctx: ctx, began: time.Now()}
	s.act(func() { story(s) })
	for _, cleanup := range slices.Backward(s.cleanups) {
		s.act(cleanup)
	}
	if s.failed {
		return 1
	}
	return 0
}

// act runs f as far as Fatal lets it.
func (s *scene) act(f func()) {
	defer func() {
		switch end := recover().(type) {
		case nil:
		case ended:
			s.gap()
			s.Error(end.reason)
		default:
			panic(end)
		}
	}()
	f()
}

func (s *scene) Helper()                  {}
func (s *scene) Name() string             { return "demo" }
func (s *scene) Context() context.Context { return s.ctx }
func (s *scene) Cleanup(f func())         { s.cleanups = append(s.cleanups, f) }
func (s *scene) Failed() bool             { return s.failed }

func (s *scene) Fatal(args ...any)                 { panic(ended{fmt.Sprint(args...)}) }
func (s *scene) Fatalf(format string, args ...any) { panic(ended{fmt.Sprintf(format, args...)}) }
func (s *scene) Skip(args ...any)                  { panic(ended{fmt.Sprint(args...)}) }

func (s *scene) Error(args ...any) {
	s.failed = true
	s.line("  %s %s", s.red("✗"), fmt.Sprint(args...))
}
func (s *scene) Errorf(format string, args ...any) { s.Error(fmt.Sprintf(format, args...)) }

// Log prints the first line: the rest are an engine's, which it says where to find.
func (s *scene) Log(args ...any) {
	first, _, _ := strings.Cut(fmt.Sprint(args...), "\n")
	s.line("  %s", s.dim(first))
}
func (s *scene) Logf(format string, args ...any) { s.Log(fmt.Sprintf(format, args...)) }

func (s *scene) TempDir() string {
	dir, err := os.MkdirTemp("", "sidemirror-demo-")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			s.Errorf("removing %s: %v", dir, err)
		}
	})
	return dir
}

// must ends the story on an error.
func (s *scene) must(errs ...error) {
	if err := errors.Join(errs...); err != nil {
		s.Fatal(err)
	}
}

func (s *scene) title(text string) {
	s.gap()
	s.line("  %s  %s", s.cyan(s.bold("sidemirror")), s.bold(text))
}

func (s *scene) chapter(text string) {
	s.chapters++
	s.gap()
	s.line("%s %s", s.cyan(fmt.Sprint(s.chapters)), s.bold(text))
	s.gap()
}

func (s *scene) fact(name, format string, args ...any) {
	s.line("  %s  %s", s.dim(fmt.Sprintf("%-12s", name)), fmt.Sprintf(format, args...))
}

// check says that something holds, or that it does not and fails the demo.
func (s *scene) check(holds bool, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if holds {
		s.line("  %s %s", s.green("✓"), text)
		return
	}
	s.Error("not so: " + text)
}

func (s *scene) close() {
	word := s.green("done")
	if s.failed {
		word = s.red("failed")
	}
	s.gap()
	s.line("  %s in %.1f s; on a host of your own: docs/install.md", word, time.Since(s.began).Seconds())
	s.gap()
}

// quote prints what a command said, set in, and a diff in it in a diff's colours.
func (s *scene) quote(text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "":
			s.gap()
			continue
		case strings.HasPrefix(line, "+++"), strings.HasPrefix(line, "---"):
		case strings.HasPrefix(line, "+"):
			line = s.green(line)
		case strings.HasPrefix(line, "-"):
			line = s.red(line)
		default:
			line = s.dim(line)
		}
		s.line("    %s", line)
	}
}
