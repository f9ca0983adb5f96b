package splice

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// expr is one top-level expression of a TOML file: a table's header, or a key with its value.
type expr struct {
	kind  unstable.Kind // Table, ArrayTable or KeyValue
	table []string      // the header above the expression, or the header itself
	key   []string      // the key of a KeyValue
	value unstable.Kind // the kind of a KeyValue's value
	text  string        // the value of a String

	start, end int // its lines: from a line's first byte to past a newline (or the file's end)
	at         int // its first byte
	valueAt    int // a String's first byte, its quote
	valueEnd   int // past its last
	keyEnd     int // past the key
}

// path returns the key from the top of the file.
func (e expr) path() []string { return slices.Concat(e.table, e.key) }

// document is a valid TOML file, with what splicing needs to know.
type document struct {
	name     string
	data     []byte
	exprs    []expr
	comments map[int]bool // offsets of comments that have a line of their own
	values   map[string]any
}

// maxTOML bounds the size of a file: go-toml takes seconds for a megabyte of tables.
const maxTOML = 256 << 10

// parseTOML refuses what the engines refuse, with the line.
func parseTOML(name string, data []byte) (*document, error) {
	if len(data) > maxTOML {
		return nil, refuse("toml-too-large", name, 0, "check what the file is", "is larger than %d KiB", maxTOML>>10)
	}
	if bytes.HasPrefix(data, bom) {
		return nil, refuse("toml-byte-order-mark", name, 1, "save the file without one", "begins with a byte order mark, with which containerd 2 ignores the file")
	}
	d := &document{name: name, data: data, comments: make(map[int]bool)}
	if err := toml.Unmarshal(data, &d.values); err != nil {
		return nil, refuse("toml-syntax", name, lineOfError(err), "correct it; until then the engine ignores the file", "not valid TOML: %v", err)
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
		return nil, refuse("toml-syntax", name, 0, "correct it; until then the engine ignores the file", "not valid TOML: %v", err)
	}
	return d, nil
}

// lineOfError returns the line that an error of go-toml is about; 0 if it has none.
func lineOfError(err error) int {
	var at *toml.DecodeError
	if !errors.As(err, &at) {
		return 0
	}
	line, _ := at.Position()
	return line
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
	e.keyEnd = last
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

// lineStart returns the first byte of the line that offset is in.
func (d *document) lineStart(offset int) int {
	return bytes.LastIndexByte(d.data[:offset], '\n') + 1
}

// lineEnd returns the offset past the newline of the line that offset is in.
func (d *document) lineEnd(offset int) int {
	if n := bytes.IndexByte(d.data[offset:], '\n'); n >= 0 {
		return offset + n + 1
	}
	return len(d.data)
}

// line returns the line at start without its ending.
func (d *document) line(start int) string {
	return strings.TrimRight(string(d.data[start:d.lineEnd(start)]), "\r\n")
}

// number returns the number of an expression's line.
func (d *document) number(e expr) int { return lineAt(d.data, e.at) }

// above returns the start of the line above the one at start, if that is a comment. A line of a
// multi-line string that looks like one is none.
func (d *document) above(start int) (int, bool) {
	if start == 0 {
		return 0, false
	}
	above := d.lineStart(start - 1)
	line := d.data[above:d.lineEnd(above)]
	indent := len(line) - len(bytes.TrimLeft(line, " \t"))
	return above, d.comments[above+indent]
}

// marked returns the start of the line above the one at start, if that is mark.
func (d *document) marked(start int, mark string) (int, bool) {
	above, ok := d.above(start)
	return above, ok && strings.TrimSpace(d.line(above)) == mark
}

// fileMark returns the offset of the line that marks the whole file as sidemirror's, or -1.
func (d *document) fileMark() int {
	first := -1
	for offset := range d.comments {
		start := d.lineStart(offset)
		if strings.TrimSpace(d.line(start)) == FileMark && (first < 0 || start < first) {
			first = start
		}
	}
	return first
}

// sameExcept returns nil if out means the same as d once the values at the given paths are ignored in
// both, and a problem otherwise.
func (d *document) sameExcept(out []byte, paths ...[]string) error {
	after, err := parseTOML(d.name, out)
	if err != nil {
		return err
	}
	was, is := d.values, after.values
	for _, path := range paths {
		was, is = without(was, path), without(is, path)
	}
	if fmt.Sprintf("%#v", was) != fmt.Sprintf("%#v", is) { // reflect.DeepEqual finds that nan differs from nan
		return refuse("toml-edit", d.name, 0, "report this file to sidemirror's authors", "cannot be edited without changing something else in it")
	}
	return nil
}

// without returns a copy of values without the one at path, and without tables that are empty then.
func without(values map[string]any, path []string) map[string]any {
	child, ok := values[path[0]]
	if !ok {
		return values
	}
	rest := maps.Clone(values)
	delete(rest, path[0])
	if table, ok := child.(map[string]any); ok && len(path) > 1 {
		if table = without(table, path[1:]); len(table) > 0 {
			rest[path[0]] = table
		}
	}
	return rest
}

// quoteTOML returns s as a basic string.
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

// quoteList returns a list of basic strings.
func quoteList(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = quoteTOML(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// appendBlock puts whole lines at the end of a file that is not empty, after an empty line. A file
// without a newline at its end stays so: [dropBlock] can tell.
func appendBlock(data []byte, block, eol string) []byte {
	if bytes.HasSuffix(data, []byte("\n")) {
		return slices.Concat(data, []byte(eol+block))
	}
	return slices.Concat(data, []byte(eol+eol+strings.TrimSuffix(block, eol)))
}

// dropBlock removes what appendBlock put there, from the offset at which the block itself begins.
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

// skipBlank skips one empty line.
func skipBlank(data []byte) []byte {
	if rest := bytes.TrimPrefix(data, []byte("\r")); bytes.HasPrefix(rest, []byte("\n")) {
		return rest[1:]
	}
	return data
}
