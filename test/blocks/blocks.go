// Package blocks finds the blocks of commands and files in the documentation: those that a reader
// pastes into a terminal or a file.
package blocks

import (
	"regexp"
	"strings"
)

// Block is one block of a document.
type Block struct {
	Document string // as the reader knows it: docs/install.md, sidemirror(1), the page
	Line     int    // the first line of its text in the document, from 1; 0 if it has no lines
	Language string // as a fence names it: "", "console", "toml"; "console" shows output too
	Text     string // without the indentation that all of its lines share
}

// comment is a remark for the reader behind a command.
var comment = regexp.MustCompile(`(?m)[ \t]+# .*$`)

// Commands returns what the reader types or pastes: of a console the lines behind the prompt, and
// of every other block the whole text. Remarks behind commands are left out, so that the same
// commands in two documents have the same text.
func (b Block) Commands() string {
	text := b.Text
	if b.Language == "console" && strings.HasPrefix(text, "$ ") {
		var typed []string
		for line := range strings.Lines(text) {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				typed = append(typed, command)
			}
		}
		text = strings.Join(typed, "")
	}
	return strings.TrimSpace(comment.ReplaceAllString(text, ""))
}

// Output returns the lines that a console shows below its commands. "…" in a line stands for
// anything.
func (b Block) Output() []string {
	if b.Language != "console" || !strings.HasPrefix(b.Text, "$ ") {
		return nil
	}
	var shown []string
	for line := range strings.Lines(b.Text) {
		line = strings.TrimRight(line, "\n")
		if !strings.HasPrefix(line, "$ ") && line != "" {
			shown = append(shown, line)
		}
	}
	return shown
}

// dedent removes the indentation that all lines share.
func dedent(lines []string) string {
	shared := -1
	for _, line := range lines {
		if blank := len(line) - len(strings.TrimLeft(line, " ")); strings.TrimSpace(line) != "" && (shared < 0 || blank < shared) {
			shared = blank
		}
	}
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(line[min(max(shared, 0), len(line)):] + "\n")
	}
	return strings.Trim(b.String(), "\n") + "\n"
}
