package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// parse makes a configuration of the file's data and the variables.
func parse(path string, data []byte, vars map[string]string) (*Config, error) {
	l := newLoader(path, data)
	if f := syntax(l.faults.source, data); f != nil {
		l.faults.add(*f)
		return nil, l.faults.orNil()
	}
	for _, s := range settings(data) {
		l.apply(s)
	}
	l.applyEnvironment(vars)
	// The values are checked against each other only if each is right alone: otherwise the
	// check would report values that are not there.
	if len(l.faults.faults) == 0 {
		l.check()
	}
	l.faults.listen = l.c.Listen
	if err := l.faults.orNil(); err != nil {
		return nil, err
	}
	l.c.turnOff()
	return l.c, nil
}

// maxKeys limits the parts of all the file's keys. The decoder searches for each among all
// others: 1 MiB of them takes it minutes, 4096 a fraction of a second.
const maxKeys = 4096

// syntax returns what is wrong with the file as TOML. The parser that settings uses does not
// notice keys and tables that occur twice; the decoder does.
func syntax(src source, data []byte) *fault {
	if f := otherEncoding(data); f != nil {
		return f
	}
	var p unstable.Parser
	p.Reset(data)
	for n := 0; p.NextExpression(); {
		if n += keyParts(p.Expression()); n > maxKeys {
			_, offset := keyPath(p.Expression().Key())
			return &fault{at: origin{offset: offset}, text: fmt.Sprintf("the file has more than %d keys, more than any configuration needs", maxKeys), secret: true}
		}
	}
	var doc map[string]any
	err := toml.Unmarshal(data, &doc)
	var decode *toml.DecodeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &decode):
		line, column := decode.Position()
		at := src.offset(line, column)
		if f := repeated(src, data, at); f != nil {
			return f
		}
		return &fault{at: origin{offset: at}, text: strings.TrimPrefix(decode.Error(), "toml: "), hint: syntaxHint(data, at)}
	}
	return &fault{text: strings.TrimPrefix(err.Error(), "toml: ")}
}

// repeated returns a fault if the file has the key or table at offset twice. It names the line of
// the first one, which may be far above what was pasted below it.
func repeated(src source, data []byte, offset int) *fault {
	all := settings(data)
	second := slices.IndexFunc(all, func(s setting) bool { return s.offset == offset })
	if second < 0 {
		return nil
	}
	this := all[second]
	for _, s := range all[:second] {
		if len(s.path) < len(this.path) || !slices.Equal(s.path[:len(this.path)], this.path) {
			continue
		}
		line, _ := src.position(s.offset)
		f := &fault{at: origin{offset: offset}, secret: true}
		switch table := this.value.kind == unstable.Table; {
		case len(s.path) == len(this.path) && table != (s.value.kind == unstable.Table):
			f.text = fmt.Sprintf("%s is both a key and a table; the first is on line %d", dotted(this.path), line)
			f.hint = "remove one of the two lines"
		case len(s.path) > len(this.path):
			f.text = fmt.Sprintf("%s is a table already, by the key on line %d", dotted(this.path), line)
			f.hint = "write all keys of the table in the same way"
		case table:
			f.text = fmt.Sprintf("the table [%s] is there twice; the first is on line %d", dotted(this.path), line)
			f.hint = fmt.Sprintf("move these keys below line %d, and remove this line", line)
		default:
			f.text = fmt.Sprintf("%s is set twice; the first time is on line %d", dotted(this.path), line)
			f.hint = "remove one of the two lines"
		}
		return f
	}
	return nil
}

// dotted returns a path as TOML has it.
func dotted(path []string) string {
	parts := make([]string, len(path))
	for i, part := range path {
		parts[i] = part
		if part == "" || strings.ContainsFunc(part, func(r rune) bool { return !isBare(r) }) {
			parts[i] = quote(part)
		}
	}
	return strings.Join(parts, ".")
}

// isBare reports whether a key with r needs no quotes.
func isBare(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}

func keyParts(n *unstable.Node) int {
	parts := 0
	for it := n.Children(); it.Next(); {
		if child := it.Node(); child.Kind == unstable.Key {
			parts++
		} else {
			parts += keyParts(child)
		}
	}
	return parts
}

// setting is one key of the file with its value, or the header of a table, which has the kind
// Table or ArrayTable and no value.
type setting struct {
	path   []string
	value  value
	offset int // of the key
}

// settings lists what the file sets, in its order. syntax has found nothing wrong with it.
func settings(data []byte) []setting {
	var (
		p    unstable.Parser
		list []setting
		in   []string
	)
	p.Reset(data)
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			path, offset := keyPath(e.Key())
			in = path
			list = append(list, setting{path: in, offset: offset, value: value{kind: e.Kind, offset: offset}})
		case unstable.KeyValue:
			list = appendKeyValue(list, in, e)
		}
	}
	return list
}

func appendKeyValue(list []setting, in []string, e *unstable.Node) []setting {
	path, offset := keyPath(e.Key())
	path = append(slices.Clone(in), path...)
	if v := e.Value(); v.Kind == unstable.InlineTable {
		list = append(list, setting{path: path, offset: offset, value: value{kind: v.Kind, offset: offset}})
		for it := v.Children(); it.Next(); {
			if it.Node().Kind == unstable.KeyValue {
				list = appendKeyValue(list, path, it.Node())
			}
		}
		return list
	}
	return append(list, setting{path: path, offset: offset, value: newValue(e.Value(), offset)})
}

func keyPath(it unstable.Iterator) (path []string, offset int) {
	for it.Next() {
		n := it.Node()
		if path == nil {
			offset = int(n.Raw.Offset)
		}
		path = append(path, string(n.Data))
	}
	return path, offset
}

// newValue returns n as a value, at offset if n has no position of its own (arrays have none).
func newValue(n *unstable.Node, offset int) value {
	if n.Raw.Length > 0 {
		offset = int(n.Raw.Offset)
	}
	v := value{kind: n.Kind, offset: offset}
	if n.Kind != unstable.Array {
		v.text = string(n.Data)
		return v
	}
	for it := n.Children(); it.Next(); {
		// The contents of a list in a list do not matter: no key accepts one.
		if elem := it.Node(); elem.Kind == unstable.Array {
			v.elems = append(v.elems, value{kind: elem.Kind, offset: offset})
		} else if elem.Kind != unstable.Comment {
			v.elems = append(v.elems, newValue(elem, offset))
		}
	}
	return v
}
