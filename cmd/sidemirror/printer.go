package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/term"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
)

const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

// printer writes lines for a person, in colour on a terminal, and remembers the first error.
type printer struct {
	w     io.Writer
	color bool
	width int // of the terminal; 0 without one
	err   error
}

func newPrinter(w io.Writer) *printer {
	return &printer{w: w, color: colored(w), width: terminalWidth(w)}
}

// colored reports whether w is a terminal whose user wants colours (no-color.org).
func colored(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

func (p *printer) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

// paint writes a line.
func (p *printer) paint(color, line string) {
	if p.color {
		line = "\x1b[" + color + "m" + line + "\x1b[0m"
	}
	p.printf("%s\n", line)
}

// printable returns text without what a terminal would obey: the files shown are other people's.
func printable(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r != '\t' && !unicode.IsPrint(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// report prints a problem or a note, and its hint on a line of its own. who is the engine that it is
// about, or "". On a terminal the text is wrapped between words. A hint stays whole, so that a command
// in it can be copied.
func (p *printer) report(color, label, who string, what *problem.Problem) {
	text := label + ": "
	if who != "" {
		text += who + ": "
	}
	text += printable(what.Error())
	if p.width > 0 {
		text = hang("", "  ", text, p.width)
	}
	if color != "" {
		p.paint(color, text)
	} else {
		p.printf("%s\n", text)
	}
	if what.Hint != "" {
		p.printf("hint: %s\n", printable(what.Hint))
	}
}

// notes prints what else is worth knowing about engines.
func (p *printer) notes(engines []engine.State, host ...*problem.Problem) {
	for _, what := range host {
		p.report("", "note", "", what)
	}
	for _, e := range engines {
		for _, what := range e.Notes {
			p.report("", "note", e.Title(), what)
		}
	}
}

// state prints one engine: "docker      28.5.2, running, containerd store: mirror active (reported by
// docker)".
func (p *printer) state(s engine.State) {
	list := []string{s.Home, s.Version}
	switch {
	case !s.Present:
		list = []string{"not found"}
	case s.Version == "" && s.Home == "":
		list = []string{"version unknown"}
	}
	switch {
	case s.Running:
		list = append(list, "running")
	case s.Present && s.Stopped:
		list = append(list, "stopped")
	}
	if s.Store != "" {
		list = append(list, strings.ReplaceAll(s.Store, " ", "-")+" store")
	}
	text := strings.Join(slices.DeleteFunc(list, func(s string) bool { return s == "" }), ", ")
	if s.Mirror != "" {
		text += ": mirror " + string(s.Mirror) + knownText(s)
	}
	p.printf("%-10s  %s\n", s.Engine, printable(text))
}

// knownText says how it is known what a running engine has in force.
func knownText(s engine.State) string {
	switch {
	case !s.Running:
		return ""
	case s.Known == engine.KnownByEngine:
		return " (reported by " + s.Engine + ")"
	case s.Known == engine.KnownByProgram:
		return " (by " + s.Engine + " config dump)"
	case s.Known == engine.KnownByFiles:
		return " (read in its files)"
	}
	return ""
}

// fileStates are the states of a file for a person.
var fileStates = map[engine.FileState]string{
	engine.Missing: "missing", engine.Outdated: "must be changed", engine.Refused: "cannot be changed",
	engine.Unwanted: "has sidemirror's entry and should not",
}

// file prints one file, and its state if that is not right.
func (p *printer) file(f engine.File) {
	if f.State == engine.InPlace {
		p.printf("            %s\n", printable(f.Path))
		return
	}
	p.paint(red, "            "+printable(f.Path)+"  "+fileStates[f.State])
}
