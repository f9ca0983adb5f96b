package splice

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// expr is one top-level expression of a TOML file: a table's header, or a key
// with its value.
type expr struct {
	kind  unstable.Kind // Table, ArrayTable or KeyValue
	table []string      // the header that it stands under, or is
	key   []string      // a KeyValue's own key
	value unstable.Kind // a KeyValue's kind of value
	text  string        // a String's value

	start, end int // its lines: from a line's first byte to past a newline (or the file's end)
	at         int // its first byte
	valueAt    int // a String's first byte, its quote
	valueEnd   int // past its last
}

// path is the key from the file's top.
func (e expr) path() []string { return slices.Concat(e.table, e.key) }

// document is a TOML file that was found valid, with what splicing needs to know.
type document struct {
	data     []byte
	exprs    []expr
	comments map[int]bool // offsets of comments that have a line of their own
	values   map[string]any
}

// parseTOML refuses what the engines refuse, with the line.
func parseTOML(name string, data []byte) (*document, error) {
	if bytes.HasPrefix(data, bom) {
		return nil, &Problem{Path: name, Line: 1, Text: "begins with a byte order mark, which containerd 2 refuses", Hint: "save it without one"}
	}
	d := &document{data: data, comments: make(map[int]bool)}
	if err := toml.Unmarshal(data, &d.values); err != nil {
		line := 0
		var at *toml.DecodeError
		if errors.As(err, &at) {
			line, _ = at.Position()
		}
		return nil, &Problem{Path: name, Line: line, Text: "is not valid TOML: " + err.Error(), Hint: "mend it; until then the engine ignores it, and so do we"}
	}
	p := unstable.Parser{KeepComments: true}
	p.Reset(data)
	var table []string
	for p.NextExpression() {
		node := p.Expression()
		if node.Kind == unstable.Comment {
			d.comments[int(node.Raw.Offset)] = true
			continue
		}
		e := d.expression(node)
		if e.kind == unstable.KeyValue {
			e.table = table
		} else {
			table = e.table
		}
		d.exprs = append(d.exprs, e)
	}
	if err := p.Error(); err != nil {
		return nil, &Problem{Path: name, Text: "is not valid TOML: " + err.Error(), Hint: "mend it"}
	}
	return d, nil
}

func (d *document) expression(node *unstable.Node) expr {
	e := expr{kind: node.Kind, at: -1}
	last := 0
	for it := node.Key(); it.Next(); {
		raw := it.Node().Raw
		if e.at < 0 {
			e.at = int(raw.Offset)
		}
		last = int(raw.Offset + raw.Length)
		e.key = append(e.key, string(it.Node().Data))
	}
	if node.Kind == unstable.KeyValue {
		value := node.Value()
		e.value = value.Kind
		e.at, last = int(node.Raw.Offset), int(node.Raw.Offset+node.Raw.Length)
		if value.Kind == unstable.String {
			e.text = string(value.Data)
			e.valueAt, e.valueEnd = int(value.Raw.Offset), int(value.Raw.Offset+value.Raw.Length)
		}
	} else {
		e.table, e.key = e.key, nil
	}
	e.start, e.end = d.lineStart(e.at), d.lineEnd(last)
	return e
}

// lineStart is the first byte of the line that offset is in.
func (d *document) lineStart(offset int) int {
	return bytes.LastIndexByte(d.data[:offset], '\n') + 1
}

// lineEnd is past the newline of the line that offset is in.
func (d *document) lineEnd(offset int) int {
	if n := bytes.IndexByte(d.data[offset:], '\n'); n >= 0 {
		return offset + n + 1
	}
	return len(d.data)
}

// comment reports whether the line from start to end is a comment and nothing
// else, and what it says. A line of a multi-line string that looks like one is none.
func (d *document) comment(start int) (string, bool) {
	line := d.data[start:d.lineEnd(start)]
	indent := len(line) - len(bytes.TrimLeft(line, " \t"))
	if !d.comments[start+indent] {
		return "", false
	}
	return string(bytes.TrimSpace(line)), true
}

// quoteTOML writes s as a basic string.
func quoteTOML(s string) string {
	const hexDigits = "0123456789ABCDEF"
	out := []byte{'"'}
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c < ' ' || c == 0x7f:
			out = append(out, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			out = append(out, c)
		}
	}
	return string(append(out, '"'))
}

// appendBlock puts whole lines at the end of a file that is not empty, after an
// empty line. A file without a newline at its end stays so: [dropBlock] can tell.
func appendBlock(data []byte, block, eol string) []byte {
	if bytes.HasSuffix(data, []byte("\n")) {
		return slices.Concat(data, []byte(eol+block))
	}
	return slices.Concat(data, []byte(eol+eol+strings.TrimSuffix(block, eol)))
}

// dropBlock takes away what appendBlock put there, from the offset at which the
// block itself begins.
func dropBlock(data []byte, from int) []byte {
	before := data[:from]
	unterminated := !bytes.HasSuffix(data, []byte("\n"))
	if unterminated {
		before = chomp(before)
	}
	if shorter := chomp(before); unterminated || bytes.HasSuffix(shorter, []byte("\n")) {
		before = shorter
	}
	return bytes.Clone(before)
}
