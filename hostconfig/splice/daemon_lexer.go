package splice

import (
	"bytes"
	"encoding/json"
	"unicode"
	"unicode/utf8"
)

// span is a range of bytes of a text.
type span struct{ start, end int }

func (s span) empty() bool { return s.start == s.end }

// token is a string, a bracket, a comma, a colon, or a run of other characters.
type token struct {
	span
	kind byte // '"', one of {}[],: or 'x'
}

// tokens splits JSON, with or without comments, and also JSON that is broken.
func tokens(text []byte) []token {
	var list []token
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"':
			end := stringEnd(text, i)
			list = append(list, token{span{i, end}, '"'})
			i = end
		case bytes.IndexByte([]byte("{}[],:"), c) >= 0:
			list = append(list, token{span{i, i + 1}, c})
			i++
		case bytes.HasPrefix(text[i:], []byte("//")):
			i = after(text, i, "\n")
		case bytes.HasPrefix(text[i:], []byte("/*")):
			i = after(text, i+2, "*/")
		case bytes.IndexByte([]byte(" \t\r\n"), c) >= 0:
			i++
		case len(list) == 0 && spaceAt(text[i:]) > 0:
			i += spaceAt(text[i:]) // dockerd trims the white space of Unicode from both ends
		default:
			start := i
			for i++; i < len(text) && bytes.IndexByte([]byte("{}[],:\" \t\r\n/"), text[i]) < 0; i++ {
			}
			list = append(list, token{span{start, i}, 'x'})
		}
	}
	return list
}

// spaceAt returns the size of the white space of Unicode that text begins with.
func spaceAt(text []byte) int {
	r, size := utf8.DecodeRune(text)
	if !unicode.IsSpace(r) {
		return 0
	}
	return size
}

// stringEnd returns the offset past the string that begins at start. A string that is not
// terminated ends with its line.
func stringEnd(text []byte, start int) int {
	for i := start + 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		case '\n':
			return i
		}
	}
	return len(text)
}

// after returns the offset past the next mark, or the end of text.
func after(text []byte, from int, mark string) int {
	if n := bytes.Index(text[min(from, len(text)):], []byte(mark)); n >= 0 {
		return from + n + len(mark)
	}
	return len(text)
}

// member is one name and value of a daemon.json.
type member struct {
	key         string
	name, value span
	elements    []span // the parts of a value that is a list
}

// members returns the object that text holds, and its members in their order. It returns an empty
// span if text holds no object.
func members(text []byte) (object span, list []member) {
	all := tokens(text)
	if len(all) == 0 || all[0].kind != '{' {
		return span{}, nil
	}
	object = span{all[0].start, len(text)}
	for i := 1; i < len(all); {
		switch {
		case all[i].kind == '}':
			object.end = all[i].end
			return object, list
		case all[i].kind == '"' && i+2 < len(all) && all[i+1].kind == ':':
			m := member{key: unquoteJSON(text, all[i].span), name: all[i].span}
			var used int
			m.value, m.elements, used = value(all[i+2:])
			list = append(list, m)
			i += 2 + used
		default:
			i++
		}
	}
	return object, list
}

// value returns the value that a list of tokens begins with, its elements if it is a list, and how
// many tokens it takes.
func value(all []token) (whole span, elements []span, used int) {
	switch all[0].kind {
	case ',', ':', '}', ']':
		return span{all[0].start, all[0].start}, nil, 0 // there is no value
	case '{', '[':
	default:
		return all[0].span, nil, 1
	}
	depth, element := 1, span{}
	for i, t := range all[1:] {
		opening, closing := t.kind == '{' || t.kind == '[', t.kind == '}' || t.kind == ']'
		if depth == 1 && (closing || t.kind == ',') {
			if !element.empty() && all[0].kind == '[' {
				elements = append(elements, element)
			}
			if element = (span{}); closing {
				return span{all[0].start, t.end}, elements, i + 2
			}
			continue
		}
		if element.empty() {
			element = t.span
		}
		element.end = t.end
		if opening {
			depth++
		} else if closing {
			depth--
		}
	}
	if !element.empty() && all[0].kind == '[' {
		elements = append(elements, element)
	}
	return span{all[0].start, all[len(all)-1].end}, elements, len(all)
}

// unquoteJSON returns the text of the string at s, or the bytes there if it is none.
func unquoteJSON(text []byte, s span) string {
	var out string
	if err := json.Unmarshal(text[s.start:s.end], &out); err != nil {
		return string(text[s.start:s.end])
	}
	return out
}

// quoteJSON returns s as a JSON string.
func quoteJSON(s string) string {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always has a JSON form
	}
	return string(quoted)
}
