// Package problem provides the error that tells a person what happened and what to do about it.
package problem

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// Code names a kind of problem and does not change between versions: "containerd-config-path". Each
// has an entry in docs/troubleshooting.md. A program finds them all by this type, so a code is a
// constant: it is not put together from parts.
type Code string

// Problem is something that keeps sidemirror from doing its work, and what to do about it.
// It is an error. Programs decide by Code and by the wrapped error, never by the text.
type Problem struct {
	Code Code

	// Path is the file or the URL that the problem is about, if any.
	Path string

	// Line is the line of that file; 0 if no line is to blame.
	Line int

	// Text says what happened.
	Text string

	// Hint says what to do. It is not part of the error's text: [Format] prints it.
	Hint string

	// Err is the cause, if any.
	Err error
}

// Error returns "path:line: text: cause", without the hint.
func (p *Problem) Error() string {
	var parts []string
	if p.Path != "" {
		at := QuotePath(p.Path)
		if p.Line > 0 {
			at += ":" + strconv.Itoa(p.Line)
		}
		parts = append(parts, at)
	}
	if p.Text != "" {
		parts = append(parts, p.Text)
	}
	if p.Err != nil {
		parts = append(parts, p.Err.Error())
	}
	return strings.Join(parts, ": ")
}

// MarshalJSON returns the problem as an object of code, path, line, text and hint, without those that
// are empty. The text includes the cause.
func (p *Problem) MarshalJSON() ([]byte, error) {
	whole := *p
	whole.Path, whole.Line = "", 0
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false) // hints have <placeholders>
	err := e.Encode(struct {
		Code Code   `json:"code"`
		Path string `json:"path,omitempty"`
		Line int    `json:"line,omitempty"`
		Text string `json:"text"`
		Hint string `json:"hint,omitempty"`
	}{p.Code, p.Path, p.Line, whole.Error(), p.Hint})
	return bytes.TrimSpace(out.Bytes()), err
}

// UnmarshalJSON reads what MarshalJSON has written.
func (p *Problem) UnmarshalJSON(data []byte) error {
	var read struct {
		Code             Code
		Path, Text, Hint string
		Line             int
	}
	if err := json.Unmarshal(data, &read); err != nil {
		return err
	}
	*p = Problem{Code: read.Code, Path: read.Path, Line: read.Line, Text: read.Text, Hint: read.Hint}
	return nil
}

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// Coded returns err as a problem, with a code if it has none.
func Coded(err error, code Code) *Problem {
	p := &Problem{}
	if !errors.As(err, &p) {
		p.Err = err
	} else if p.Error() != err.Error() { // it is a cause of more
		p = &Problem{Code: p.Code, Err: err, Hint: p.Hint}
	}
	if p.Code == "" {
		copied := *p
		copied.Code = code
		p = &copied
	}
	return p
}

// Hint returns the hint of the first problem in err's chain that has one, or "".
func Hint(err error) string {
	for err != nil {
		if p, ok := err.(*Problem); ok && p.Hint != "" { //nolint:errorlint // walks the chain itself
			return p.Hint
		}
		switch wrapped := err.(type) { //nolint:errorlint // walks the chain itself
		case interface{ Unwrap() error }:
			err = wrapped.Unwrap()
		case interface{ Unwrap() []error }:
			for _, part := range wrapped.Unwrap() {
				if hint := Hint(part); hint != "" {
					return hint
				}
			}
			return ""
		default:
			return ""
		}
	}
	return ""
}

// Split returns the errors that [errors.Join] put together, or err alone. It returns nothing
// for nil.
func Split(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var list []error
	var texts []string
	for _, part := range joined.Unwrap() {
		list = append(list, Split(part)...)
		texts = append(texts, part.Error())
	}
	if strings.Join(texts, "\n") != err.Error() {
		return []error{err} // not errors.Join, but fmt.Errorf with several causes
	}
	return list
}

// Format returns err as a person should see it: each joined error on a line that begins with
// prefix, and its hint, if any, on a line of its own below it. The last line has no newline.
func Format(prefix string, err error) string {
	var lines []string
	for _, part := range Split(err) {
		lines = append(lines, prefix+part.Error())
		if hint := Hint(part); hint != "" {
			lines = append(lines, "hint: "+hint)
		}
	}
	return strings.Join(lines, "\n")
}

// QuotePath quotes a path that holds control characters or is not UTF-8, so that it takes one line
// and cannot pass for text of sidemirror's.
func QuotePath(name string) string {
	unsafe := func(r rune) bool { return !strconv.IsPrint(r) }
	if strings.ContainsFunc(name, unsafe) || strings.ToValidUTF8(name, "") != name {
		return strconv.Quote(name)
	}
	return name
}
