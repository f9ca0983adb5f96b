package config

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
)

// otherEncoding returns a fault if the file is not plain UTF-8: editors on Windows store other forms.
func otherEncoding(data []byte) *fault {
	const hint = "store the file as UTF-8 without a byte order mark"
	switch {
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		return &fault{text: "the file begins with a byte order mark", hint: hint + ": sed -i '1s/^\\xEF\\xBB\\xBF//' FILE", secret: true}
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		return &fault{text: "the file is in UTF-16", hint: hint, secret: true}
	}
	return nil
}

var (
	// yamlLine is a line of YAML, and bareLine one of TOML with a text that has no quotes.
	yamlLine = lazyregexp.New(`^\s*(- |[A-Za-z_][\w.-]*:(\s|$))`)
	bareLine = lazyregexp.New(`^\s*[\w."'-]+\s*=\s*[^\s"'\[{0-9tf+-]`)
)

// syntaxHint returns what to do about a line that is no TOML.
func syntaxHint(data []byte, offset int) string {
	start := bytes.LastIndexByte(data[:offset], '\n') + 1
	line, _, _ := strings.Cut(string(data[start:]), "\n")
	switch {
	case !utf8.ValidString(line):
		return "store the file as UTF-8"
	case strings.HasPrefix(strings.TrimSpace(string(data)), "{"):
		return `the file must be TOML, not JSON: write KEY = VALUE, as listen = ["127.0.0.1:305"]`
	case yamlLine().MatchString(line):
		return `the file must be TOML, not YAML: write KEY = VALUE, and [TABLE] before the keys of a table`
	case strings.ContainsAny(line, "“”„‘’"):
		return `write straight quotes: "text"`
	case bareLine().MatchString(line):
		return `write a text in quotes, as KEY = "text"`
	case strings.HasPrefix(strings.TrimSpace(line), "[") && !strings.Contains(line, "]"):
		return `write a table as [TABLE]`
	case strings.Count(line, `"`)%2 == 1:
		return `end the text with a quote: "text"`
	case !strings.Contains(line, "="):
		return `write KEY = VALUE, or # before a comment`
	}
	return ""
}
