package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxFileSize bounds the configuration file, in bytes.
const maxFileSize = 1 << 20

// Load reads the configuration: the defaults, changed by the file at path, changed
// by environ (in the form of os.Environ). If path is "", SIDEMIRROR_CONFIG in
// environ names the file, and if that is empty too, it is DefaultFile, which alone
// may be absent. An error about what is written there has a method ExitCode() int
// that answers 2 and shows, for at most ten faults, place, line and caret.
func Load(path string, environ []string) (*Config, error) {
	asked := path
	vars, err := environment(environ)
	if err != nil {
		return nil, err
	}
	optional := false
	if path == "" {
		path = vars[configVariable]
	}
	if path == "" {
		path, optional = DefaultFile, true
	}
	data, err := ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if !optional {
			return nil, &missingFileError{path, err}
		}
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	c, err := load(path, data, vars)
	if err != nil {
		return nil, err
	}
	c.again.path, c.again.environ = asked, environ
	return c, nil
}

// Reload reads again what c was read from.
func (c *Config) Reload() (*Config, error) { return Load(c.again.path, c.again.environ) }

// missingFileError is a file that was named and is not there: wrong usage.
type missingFileError struct {
	path string
	err  error
}

func (e *missingFileError) Error() string {
	return fmt.Sprintf("reading the configuration %s: there is no such file; name another with --config or %s, or none for %s", e.path, configVariable, DefaultFile)
}
func (e *missingFileError) Unwrap() error { return e.err }
func (*missingFileError) ExitCode() int   { return 2 }

// Contents returns the text of the file that c was read from.
func (c *Config) Contents() string { return c.source.data }

// ReadFile reads a configuration file: a regular file of at most 1 MiB.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("%s has more than %d bytes, which no configuration has", path, maxFileSize)
	}
	return data, nil
}

// load is Load without the disk.
func load(path string, data []byte, vars map[string]string) (*Config, error) {
	l := newLoader(path, data)
	if p := syntax(l.faults.source, data); p != nil {
		l.faults.add(*p)
		return nil, l.faults.orNil()
	}
	for _, s := range settings(data) {
		l.apply(s)
	}
	l.applyEnvironment(vars)
	// What the values mean together is looked at only when each is right alone: it
	// would be told about values that are not there.
	if len(l.faults.problems) == 0 {
		l.check()
	}
	if err := l.faults.orNil(); err != nil {
		return nil, err
	}
	return l.c, nil
}

// maxKeys bounds the parts of all the file's keys. The decoder looks for each
// among all others: 1 MiB of them takes it minutes, 4096 a fraction of a second.
const maxKeys = 4096

// syntax is what TOML itself has against the file. The parser that settings uses
// does not see keys and tables that are there twice; the decoder does.
func syntax(src source, data []byte) *problem {
	var p unstable.Parser
	p.Reset(data)
	for n := 0; p.NextExpression(); {
		if n += keyParts(p.Expression()); n > maxKeys {
			_, offset := keyPath(p.Expression().Key())
			return &problem{at: origin{offset: offset}, text: fmt.Sprintf("the file has more than %d keys, and no use for so many", maxKeys), secret: true}
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
		return &problem{at: origin{offset: src.offset(line, column)}, text: strings.TrimPrefix(decode.Error(), "toml: ")}
	}
	return &problem{text: strings.TrimPrefix(err.Error(), "toml: ")}
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

// setting is one key of the file with its value, or a table's header, which has
// the kind Table or ArrayTable and no value.
type setting struct {
	path   []string
	value  value
	offset int // of the key
}

// settings lists what the file sets, in its order. The file is right by syntax.
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

// newValue is n, placed at offset if n does not say where it is (arrays do not).
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
		// What is in a list in a list does not matter: none is ever right.
		if elem := it.Node(); elem.Kind == unstable.Array {
			v.elems = append(v.elems, value{kind: elem.Kind, offset: offset})
		} else if elem.Kind != unstable.Comment {
			v.elems = append(v.elems, newValue(elem, offset))
		}
	}
	return v
}
