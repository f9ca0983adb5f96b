package main

import (
	"fmt"
	"os"
)

// paint writes lines, coloured where a person looks on: a terminal, and no NO_COLOR
// (https://no-color.org).
type paint struct {
	out    *os.File
	colour bool
	blank  bool // the last line was empty
}

func newPaint(out *os.File) *paint {
	info, err := out.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &paint{out: out, colour: terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// line writes one line. A terminal that is gone is nothing to act upon.
func (p *paint) line(format string, args ...any) {
	fmt.Fprintf(p.out, format+"\n", args...)
	p.blank = false
}

// gap leaves one empty line, never two.
func (p *paint) gap() {
	if !p.blank {
		p.line("")
	}
	p.blank = true
}

func (p *paint) dye(code, text string) string {
	if !p.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p *paint) bold(text string) string   { return p.dye("1", text) }
func (p *paint) dim(text string) string    { return p.dye("2", text) }
func (p *paint) red(text string) string    { return p.dye("31", text) }
func (p *paint) green(text string) string  { return p.dye("32", text) }
func (p *paint) yellow(text string) string { return p.dye("33", text) }
func (p *paint) cyan(text string) string   { return p.dye("36", text) }

// short is a digest's beginning, enough to tell those of a demo apart.
func short(digest string) string {
	if len(digest) > 19 {
		return digest[:19] + "…"
	}
	return digest
}

// size is a count of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
