// Package splice edits the configuration files of container engines: bytes and a wish go in,
// bytes or a [problem.Problem] come out. It opens no file and logs nothing.
//
// Each editor inserts sidemirror's entry and keeps every other byte of the file. Removing the
// entry restores the original bytes. After each edit an independent parse confirms that everything
// else in the file means what it meant before.
package splice

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// FileMark is the first line of a file that sidemirror writes as a whole. It names the owner, and
// identifies the file if the journal is lost.
const FileMark = `# sidemirror: this file is sidemirror's; to undo: sidemirror revert`

// The marks of entries in other files.
const (
	tableMark   = `# sidemirror: this table is sidemirror's; to undo: sidemirror revert`
	settingMark = `# sidemirror: this setting is sidemirror's; to undo: sidemirror revert`
	markStart   = `# sidemirror: this `
)

// Marked reports whether data contains a line that marks an entry of sidemirror.
func Marked(data []byte) bool { return bytes.Contains(data, []byte(markStart)) }

// Removed is a file without sidemirror's entry.
type Removed struct {
	Rest  []byte // the file's remaining bytes
	Found bool   // the file had an entry
	Bare  bool   // sidemirror wrote the file, and Rest means nothing without the entry
}

// Version is the version of an engine or of a library. The zero value means that it is unknown.
type Version struct{ Major, Minor int }

func (v Version) unknown() bool { return v == Version{} }

// before reports whether v is known to be older than major.minor.
func (v Version) before(major, minor int) bool {
	return !v.unknown() && (v.Major < major || v.Major == major && v.Minor < minor)
}

// atLeast reports whether v is known to be major.minor or newer.
func (v Version) atLeast(major, minor int) bool { return !v.unknown() && !v.before(major, minor) }

// refuse returns a problem with a file.
func refuse(code problem.Code, path string, line int, hint, format string, args ...any) error {
	return &problem.Problem{Code: code, Path: path, Line: line, Text: fmt.Sprintf(format, args...), Hint: hint}
}

// lineAt returns the number of the line that offset lies in.
func lineAt(b []byte, offset int) int {
	return 1 + bytes.Count(b[:min(max(offset, 0), len(b))], []byte("\n"))
}

// newline returns the line ending that data uses.
func newline(data []byte) string {
	if n := bytes.IndexByte(data, '\n'); n > 0 && data[n-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// chomp removes one newline from the end of data.
func chomp(data []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
}

// splice replaces data[from:to].
func splice(data []byte, from, to int, with string) []byte {
	return slices.Concat(data[:from], []byte(with), data[to:])
}
