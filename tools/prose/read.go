package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"strconv"
	"strings"
)

// line is one line of prose.
type line struct {
	number int
	text   string
	wide   bool // the line may be longer than maxWidth: a table, a link, code
}

// reader finds the prose in a file.
type reader func(name string, data []byte) ([]line, error)

// readerFor returns the reader for a file, or nil if there is no prose to check in it.
func readerFor(name string) reader {
	switch {
	case strings.Contains(name, "testdata/"), path.Base(name) == "LICENSE", strings.HasPrefix(name, "tools/prose/"):
		return nil
	}
	switch path.Ext(name) {
	case ".go":
		return readGo
	case ".md":
		return readMarkdown
	case ".html", ".8", ".1", ".5":
		return readPlain
	case ".toml", ".sh", ".service", ".socket", ".preset", ".yaml", ".mod":
		return readHashComments
	}
	if base := path.Base(name); base == "Makefile" || name == ".ci/run" {
		return readHashComments
	}
	return nil
}

// readGo returns the comments and the strings of a Go file.
func readGo(name string, data []byte) ([]line, error) {
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, name, data, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	var lines []line
	add := func(at token.Pos, text string) {
		first := files.Position(at).Line
		for i, part := range strings.Split(text, "\n") {
			lines = append(lines, line{number: first + i, text: part, wide: true})
		}
	}
	for _, group := range parsed.Comments {
		for _, c := range group.List {
			add(c.Pos(), c.Text)
		}
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if text, err := strconv.Unquote(literal.Value); err == nil && strings.Contains(text, " ") {
				add(literal.Pos(), text)
			}
		}
		return true
	})
	return lines, nil
}

// readMarkdown returns what is not a code block. A table's row and a line that is one link may be wide.
func readMarkdown(_ string, data []byte) ([]line, error) {
	var lines []line
	code := false
	for i, text := range strings.Split(string(data), "\n") {
		trimmed := strings.TrimSpace(text)
		if strings.HasPrefix(trimmed, "```") {
			code = !code
			continue
		}
		if !code {
			wide := strings.HasPrefix(trimmed, "|") || !strings.Contains(strings.TrimLeft(trimmed, "-*0123456789. "), " ")
			lines = append(lines, line{number: i + 1, text: text, wide: wide})
		}
	}
	return lines, nil
}

// readPlain returns every line.
func readPlain(_ string, data []byte) ([]line, error) {
	var lines []line
	for i, text := range strings.Split(string(data), "\n") {
		lines = append(lines, line{number: i + 1, text: text, wide: true})
	}
	return lines, nil
}

// readHashComments returns what stands behind "#", and strings that a script prints.
func readHashComments(_ string, data []byte) ([]line, error) {
	var lines []line
	for i, text := range strings.Split(string(data), "\n") {
		if at := strings.IndexAny(text, `#"'`); at >= 0 {
			lines = append(lines, line{number: i + 1, text: text[at:], wide: true})
		}
	}
	return lines, nil
}
