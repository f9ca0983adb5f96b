package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxProblems is how many things wrong are told at once: a file of another
// program would otherwise fill the terminal, and the journal at every change.
const maxProblems = 10

// origin is where a setting was made: in the file, or in a variable.
type origin struct {
	variable string // "" for the file
	offset   int    // into the file
}

// problem is one thing wrong with the configuration.
type problem struct {
	at   origin
	text string
	// secret is set where what stands after the "=" may be a password: the key is
	// unknown, so that nobody knows.
	secret bool
}

// Error is a configuration that cannot be used. Its text has a line for each problem, those of the file with the line and a caret below.
type Error struct {
	source   source
	problems []problem
	more     int              // problems beyond maxProblems
	listen   []netip.AddrPort // as far as the configuration tells
}

// ExitCode returns 2: wrong usage.
func (*Error) ExitCode() int { return 2 }

func (e *Error) full() bool { return len(e.problems) == maxProblems }

func (e *Error) add(p problem) {
	if e.full() {
		e.more++
		return
	}
	e.problems = append(e.problems, p)
}

// orNil keeps a nil *Error from becoming an error that is not nil.
func (e *Error) orNil() error {
	if len(e.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(e.problems, func(a, b problem) int {
		if c := cmp.Compare(a.at.variable, b.at.variable); c != 0 {
			return c
		}
		return cmp.Compare(a.at.offset, b.at.offset)
	})
	return e
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("the configuration cannot be used:\n")
	for _, p := range e.problems {
		b.WriteString(e.source.describe(p.at) + ": " + p.text + "\n")
		if p.at.variable == "" {
			b.WriteString(e.source.excerpt(p.at.offset, p.secret))
		}
	}
	if e.more > 0 {
		fmt.Fprintf(&b, "and %d more\n", e.more)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Brief returns err on one line, for the log: if it is an [*Error], each problem without the
// excerpt of the file.
func Brief(err error) string {
	var e *Error
	if !errors.As(err, &e) {
		return strings.Join(strings.Fields(err.Error()), " ")
	}
	lines := make([]string, 0, len(e.problems))
	for _, p := range e.problems {
		lines = append(lines, e.source.describe(p.at)+": "+p.text)
	}
	return strings.Join(lines, "; ")
}

// source is the file as it was read.
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

// position is line and column, both from 1, the column in characters.
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

// excerpt is the line of offset and a caret below it.
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

// window cuts a long line to what is around at, and replaces what would steer a terminal.
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

// userinfo is everything between a URL's scheme and the last @ of the line: a
// password may hold any character that a URL should not.
var userinfo = regexp.MustCompile(`://.*@`)

var assignment = regexp.MustCompile(`^\s*([^=]*?)\s*=`)

// withoutSecrets hides what could be a password in a line of the file, which has
// no place for one, and answers with where at has moved to.
func withoutSecrets(text string, at int, secret bool) (string, int) {
	if m := assignment.FindStringSubmatchIndex(text); m != nil && (secret || !isKeyName(text[m[2]:m[3]])) {
		text = text[:m[1]] + " …"
	}
	if m := userinfo.FindStringIndex(text); m != nil {
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

// quote is a value as an error shows it.
func quote(text string) string {
	text = userinfo.ReplaceAllString(text, "://[redacted]@")
	if utf8.RuneCountInString(text) > 100 {
		text = string([]rune(text)[:100]) + "…"
	}
	return fmt.Sprintf("%q", text)
}

// nearest is the candidate most like name, or "" if none is like it.
func nearest(name string, candidates []string) string {
	const longest = 64
	best, least := "", 1<<30
	for _, c := range candidates {
		if len(name) > longest || len(c) > longest {
			continue
		}
		if d := editDistance(strings.ToLower(name), strings.ToLower(c)); d < least {
			best, least = c, d
		}
	}
	if least > max(1, len(best)/3) {
		return ""
	}
	return best
}

// editDistance is Levenshtein's, with the exchange of two neighbours counting as one.
func editDistance(a, b string) int {
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			differ := 1
			if a[i-1] == b[j-1] {
				differ = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+differ)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
