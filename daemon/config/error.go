package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// maxFaults is how many faults are reported at once: a file of another program would otherwise
// fill the terminal, and the journal at every change.
const maxFaults = 10

// origin is where a setting was made: in the file, or in a variable.
type origin struct {
	variable string // "" for the file
	offset   int    // into the file
}

// fault is one thing that is wrong with the configuration.
type fault struct {
	at   origin
	text string
	hint string
	// secret says that the text after the "=" may be a password: the key is unknown, or its value has one.
	secret bool
}

// wrong returns an error with a hint. Its text is completed with the name of the key.
func wrong(text, hint string) error {
	return &problem.Problem{Code: "config-invalid", Text: text, Hint: hint}
}

// Error is a configuration that cannot be used. Its text has a line for each fault, with the
// hint below it. A fault of the file has the line that it is in, and a caret.
type Error struct {
	source source
	faults []fault
	more   int              // faults beyond maxFaults
	listen []netip.AddrPort // as far as the configuration tells
}

// ExitCode returns 2: wrong usage.
func (*Error) ExitCode() int { return 2 }

// Problems returns the faults, at most ten.
func (e *Error) Problems() []*problem.Problem {
	list := make([]*problem.Problem, 0, len(e.faults))
	for _, f := range e.faults {
		p := &problem.Problem{Code: "config-invalid", Path: f.at.variable, Text: f.text, Hint: f.hint}
		if f.at.variable == "" {
			p.Path = e.source.path
			p.Line, _ = e.source.position(f.at.offset)
		}
		list = append(list, p)
	}
	return list
}

func (e *Error) full() bool { return len(e.faults) == maxFaults }

func (e *Error) add(f fault) {
	if e.full() {
		e.more++
		return
	}
	e.faults = append(e.faults, f)
}

// orNil returns e, or nil if it has no faults.
func (e *Error) orNil() error {
	if len(e.faults) == 0 {
		return nil
	}
	slices.SortStableFunc(e.faults, func(a, b fault) int {
		return cmp.Or(cmp.Compare(a.at.variable, b.at.variable), cmp.Compare(a.at.offset, b.at.offset))
	})
	return e
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("the configuration cannot be used:\n")
	for _, f := range e.faults {
		b.WriteString(e.source.describe(f.at) + ": " + f.text + "\n")
		if f.at.variable == "" {
			b.WriteString(e.source.excerpt(f.at.offset, f.secret))
		}
		if f.hint != "" {
			b.WriteString("hint: " + f.hint + "\n")
		}
	}
	if e.more > 0 {
		fmt.Fprintf(&b, "and %d more\n", e.more)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Brief returns err on one line, for the log: if it is an [*Error], each fault without the
// excerpt of the file.
func Brief(err error) string {
	var e *Error
	if !errors.As(err, &e) {
		return strings.Join(strings.Fields(err.Error()), " ")
	}
	lines := make([]string, 0, len(e.faults))
	for _, f := range e.faults {
		line := e.source.describe(f.at) + ": " + f.text
		if f.hint != "" {
			line += " (" + f.hint + ")"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}
