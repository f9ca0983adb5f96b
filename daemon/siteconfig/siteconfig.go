// Package siteconfig edits the configuration file for "sidemirror site". It adds whole lines and marks
// each of them, so that removing them gives the file back as it was, to the byte.
package siteconfig

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// Marks are at the end of the lines that Add adds.
const (
	mark = `# by "sidemirror site"`

	// unended is the mark of a line before which a line end was missing.
	unended = mark + ", which ended the line above"

	// Former versions had these.
	formerMark    = `# by "sidemirror site enable"`
	formerUnended = formerMark + ", which ended the line above"
)

// Setting is a key of a table with its value.
type Setting struct {
	Table []string // the parts of its name: registry, docker.io
	Key   string
	Value any // a text, a truth value or a list of texts
}

// Add returns the file with settings in it. It adds to tables that the file has, and at the end the
// others. The error is a problem if the file has one of the keys.
func Add(data []byte, settings []Setting) ([]byte, error) {
	out, added := data, map[string]bool{}
	for _, s := range settings {
		table := strings.Join(s.Table, "\x00")
		if added[table] {
			continue
		}
		added[table] = true
		of := slices.DeleteFunc(slices.Clone(settings), func(other Setting) bool { return !slices.Equal(other.Table, s.Table) })
		var err error
		if out, err = addTo(out, of); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// addTo adds settings of one table.
func addTo(data []byte, settings []Setting) ([]byte, error) {
	header, keys := find(data, settings[0].Table)
	var lines strings.Builder
	for _, s := range settings {
		text := s.Key + " = " + encode(s.Value)
		if at, set := keys[s.Key]; set {
			return nil, &problem.Problem{
				Code: "site-key-set", Line: lineOf(data, at), Text: fmt.Sprintf("%s is set in [%s] already", s.Key, name(s.Table)),
				Hint: "write there yourself: " + text,
			}
		}
		fmt.Fprintf(&lines, "%s %s\n", text, mark)
	}
	if header >= 0 {
		end := bytes.IndexByte(data[header:], '\n')
		if end < 0 {
			return appendLines(data, lines.String()), nil
		}
		return slices.Insert(slices.Clone(data), header+end+1, []byte(lines.String())...), nil
	}
	return appendLines(data, fmt.Sprintf("[%s] %s\n%s", name(settings[0].Table), mark, lines.String())), nil
}

// appendLines adds lines at the end of a file.
func appendLines(data []byte, lines string) []byte {
	if len(data) > 0 && data[len(data)-1] != '\n' {
		first, rest, _ := strings.Cut(lines, "\n")
		lines = "\n" + strings.TrimSuffix(first, mark) + unended + "\n" + rest
	}
	return append(slices.Clone(data), lines...)
}

// find returns where the header of a table is, -1 if the file has none, and where its keys are.
func find(data []byte, table []string) (header int, keys map[string]int) {
	header, keys = -1, map[string]int{}
	var p unstable.Parser
	p.Reset(data)
	inside := false
	for p.NextExpression() {
		e := p.Expression()
		path, offset := pathOf(e)
		switch e.Kind {
		case unstable.Table:
			if inside = slices.Equal(path, table); inside {
				header = offset
			}
		case unstable.ArrayTable:
			inside = false
		case unstable.KeyValue:
			if inside && len(path) > 0 {
				keys[path[0]] = offset
			}
		}
	}
	return header, keys
}

// pathOf returns the parts of a key, and where it is.
func pathOf(e *unstable.Node) (path []string, offset int) {
	for it := e.Key(); it.Next(); {
		n := it.Node()
		if path == nil {
			offset = int(n.Raw.Offset)
		}
		path = append(path, string(n.Data))
	}
	return path, offset
}

func lineOf(data []byte, offset int) int { return 1 + bytes.Count(data[:offset], []byte("\n")) }

// Remove returns the file without the lines that Add has added, also if other lines have changed.
func Remove(data []byte) []byte {
	var out []byte
	for line := range bytes.Lines(data) {
		text := bytes.TrimRight(line, "\r\n")
		switch {
		case bytes.HasSuffix(text, []byte(unended)), bytes.HasSuffix(text, []byte(formerUnended)):
			out = bytes.TrimSuffix(out, []byte("\n"))
		case bytes.HasSuffix(text, []byte(mark)), bytes.HasSuffix(text, []byte(formerMark)):
		default:
			out = append(out, line...)
		}
	}
	return out
}

// Users returns the setting of users that Add has added to a file, if there is one. It is found also in a
// file that is otherwise faulty.
func Users(data []byte) (s Setting, found bool) {
	const key = "users"
	for line := range bytes.Lines(data) {
		text := strings.TrimRight(string(line), "\r\n")
		for _, end := range []string{mark, unended} {
			value, isOne := strings.CutPrefix(text, key+" = ")
			value, marked := strings.CutSuffix(value, " "+end)
			if path, err := strconv.Unquote(value); isOne && marked && err == nil {
				return UsersAre(path), true
			}
		}
	}
	return Setting{}, false
}

// UsersAre returns the setting with which only the users in the file at path may ask.
func UsersAre(path string) Setting {
	return Setting{Table: []string{"site"}, Key: "users", Value: path}
}

// name returns the name of a table as TOML has it.
func name(table []string) string {
	parts := slices.Clone(table)
	for i, part := range parts {
		if strings.ContainsAny(part, ".:") {
			parts[i] = strconv.Quote(part)
		}
	}
	return strings.Join(parts, ".")
}

// encode returns a value as TOML has it. The texts are printable.
func encode(value any) string {
	switch v := value.(type) {
	case string:
		return strconv.Quote(v)
	case []string:
		quoted := make([]string, len(v))
		for i, text := range v {
			quoted[i] = strconv.Quote(text)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	return fmt.Sprint(value)
}
