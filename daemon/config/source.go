package config

import (
	"fmt"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
)

// source is the text of the file.
type source struct {
	path  string
	data  string
	lines []int // offset of each line
}

func newSource(path, data string) source {
	s := source{path: path, data: data, lines: []int{0}}
	for i := range len(data) {
		if data[i] == '\n' {
			s.lines = append(s.lines, i+1)
		}
	}
	return s
}

// position returns line and column, both from 1, the column in characters.
func (s source) position(offset int) (line, column int) {
	line = sort.SearchInts(s.lines, offset+1)
	return line, utf8.RuneCountInString(s.data[s.lines[line-1]:offset]) + 1
}

func (s source) offset(line, column int) int {
	if line < 1 || line > len(s.lines) {
		return len(s.data)
	}
	return min(s.lines[line-1]+max(column-1, 0), len(s.data))
}

func (s source) describe(at origin) string {
	if at.variable != "" {
		return at.variable
	}
	line, column := s.position(at.offset)
	return fmt.Sprintf("%s:%d:%d", s.path, line, column)
}

// excerpt returns the line of offset with a caret below it.
func (s source) excerpt(offset int, secret bool) string {
	line, _ := s.position(offset)
	text := s.data[s.lines[line-1]:]
	text, _, _ = strings.Cut(text, "\n")
	at := min(offset-s.lines[line-1], len(text))
	text, at = withoutSecrets(strings.TrimSuffix(text, "\r"), at, secret)
	before, after := window(text, at)
	pad := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, before)
	number := fmt.Sprintf("%4d", line)
	return fmt.Sprintf("%s | %s\n%s | %s^\n", number, before+after, strings.Repeat(" ", len(number)), pad)
}

// window cuts a long line to the part around at, and replaces characters that a terminal would
// interpret.
func window(text string, at int) (before, after string) {
	const most = 72
	at = min(at, len(text))
	before, after = printable(text[:at]), printable(text[at:])
	if n := utf8.RuneCountInString(before); n > most {
		before = "…" + string([]rune(before)[n-most:])
	}
	if n := utf8.RuneCountInString(after); n > most {
		after = string([]rune(after)[:most]) + "…"
	}
	return before, after
}

func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// userinfo is everything between a URL's scheme and the last @ of the line: a password may hold
// any character that a URL should not.
var userinfo = lazyregexp.New(`://.*@`)

var assignment = lazyregexp.New(`^\s*([^=]*?)\s*=`)

// withoutSecrets hides what could be a password in a line of the file, which has no key for one,
// and returns where at has moved to.
func withoutSecrets(text string, at int, secret bool) (string, int) {
	if m := assignment().FindStringSubmatchIndex(text); m != nil && (secret || !isKeyName(text[m[2]:m[3]])) {
		text = text[:m[1]] + " …"
	}
	if m := userinfo().FindStringIndex(text); m != nil {
		const instead = "://[redacted]@"
		switch {
		case at >= m[1]:
			at += len(instead) - (m[1] - m[0])
		case at > m[0]:
			at = m[0]
		}
		text = text[:m[0]] + instead + text[m[1]:]
	}
	return text, min(at, len(text))
}

// quote returns a value as an error shows it.
func quote(text string) string {
	text = userinfo().ReplaceAllString(text, "://[redacted]@")
	if utf8.RuneCountInString(text) > 100 {
		text = string([]rune(text)[:100]) + "…"
	}
	return fmt.Sprintf("%q", text)
}
