package users

import (
	"bytes"
	"strings"
)

// nameIn returns the user of a line; "" if it has none.
func nameIn(line []byte) string {
	text := strings.TrimRight(string(line), "\r\n \t")
	if text == "" || text[0] == '#' {
		return ""
	}
	name, _, _ := strings.Cut(text, ":")
	return name
}

// withUser returns a file with a line for a user: in place of the first that there is, or at the end.
func withUser(data []byte, name, hash string) (after []byte, existed bool) {
	end := "\n"
	for line := range bytes.Lines(data) {
		if bytes.HasSuffix(line, []byte("\r\n")) {
			end = "\r\n"
		}
		switch {
		case nameIn(line) != name:
			after = append(after, line...)
		case !existed:
			existed = true
			after = append(after, name+":"+hash+endOf(line)...)
		}
	}
	if existed {
		return after, true
	}
	if len(after) > 0 && after[len(after)-1] != '\n' {
		after = append(after, end...)
	}
	return append(after, name+":"+hash+end...), false
}

// withoutUser returns a file without the lines of a user.
func withoutUser(data []byte, name string) (after []byte, existed bool) {
	for line := range bytes.Lines(data) {
		if nameIn(line) == name {
			existed = true
			continue
		}
		after = append(after, line...)
	}
	return after, existed
}

// endOf returns the line end of a line; "" if it has none.
func endOf(line []byte) string {
	switch {
	case bytes.HasSuffix(line, []byte("\r\n")):
		return "\r\n"
	case bytes.HasSuffix(line, []byte("\n")):
		return "\n"
	}
	return ""
}
