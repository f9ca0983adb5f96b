// Package splice edits the configuration files of container engines: bytes and a wish go in,
// bytes or a [Problem] come out. It opens no file and logs nothing.
//
// Each editor inserts sidemirror's entry and keeps every other byte of the file. Removing the
// entry restores the original bytes.
package splice

import (
	"bytes"
	"slices"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// A line above each entry names its owner. It also identifies the entry if the journal is lost.
const (
	FileMark  = `# sidemirror: this file is sidemirror's; to undo: sidemirror revert`
	tableMark = `# sidemirror: this table is sidemirror's; to undo: sidemirror revert`
	markStart = `# sidemirror: this `
)

// Marked reports whether data contains a line that marks an entry of sidemirror.
func Marked(data []byte) bool { return bytes.Contains(data, []byte(markStart)) }

// Removed is a file without sidemirror's entry.
type Removed struct {
	Rest  []byte // the file's remaining bytes
	Found bool   // the file had an entry
	Bare  bool   // sidemirror wrote the file, and Rest means nothing without the entry
}

// Problem is a file that sidemirror does not edit, with the reason and a hint.
type Problem = problem.Problem

var bom = []byte("\xef\xbb\xbf")

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
