package splice

import (
	"bytes"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// BuildKit is what a buildkitd.toml should say: sidemirror as the first mirror of each registry.
type BuildKit struct {
	// Mirror is sidemirror's host: "127.0.0.1:305". buildkitd asks a loopback address by plain HTTP.
	Mirror string

	// PlainHTTP makes buildkitd ask a Mirror that is no loopback address by plain HTTP too.
	PlainHTTP bool

	// Registries are names as in references: "docker.io".
	Registries []string
}

// table returns the table of one registry.
func (b BuildKit) table(registry, eol string) string {
	return "[registry." + quoteTOML(registry) + "]" + eol + "  " + b.setting() + eol
}

func (b BuildKit) setting() string { return "mirrors = " + quoteList([]string{b.Mirror}) }

// File returns a whole buildkitd.toml.
func (b BuildKit) File() []byte {
	text := FileMark + "\n"
	for i, registry := range b.Registries {
		if i > 0 {
			text += "\n"
		}
		text += b.table(registry, "\n")
	}
	if b.PlainHTTP {
		text += "\n" + b.mirrorTable("\n")
	}
	return []byte(text)
}

// mirrorTable returns the table about the mirror itself.
func (b BuildKit) mirrorTable(eol string) string {
	return "[registry." + quoteTOML(b.Mirror) + "]" + eol + "  http = true" + eol
}

// addMirrorTable adds that table to tables, unless d has it. It refuses a table that says something else.
func (b BuildKit) addMirrorTable(d *document, tables []string, eol string) ([]string, error) {
	known := lookup(d.values, []string{"registry", b.Mirror})
	if known == nil {
		return append(tables, tableMark+eol+b.mirrorTable(eol)), nil
	}
	if lookup(d.values, []string{"registry", b.Mirror, "http"}) != true {
		return nil, refuse("buildkitd-toml-shape", d.name, 0, "add http = true to it", "has a table for %s that does not allow plain HTTP", b.Mirror)
	}
	return tables, nil
}

// Add inserts sidemirror into base: as the first element of the mirrors of a registry that has some, as
// a line of a registry's table, or as a table at the end. base must have no entry of sidemirror.
func (b BuildKit) Add(name string, base []byte) ([]byte, error) {
	if len(base) == 0 {
		return b.File(), nil
	}
	d, err := parseTOML(name, base)
	if err != nil {
		return nil, err
	}
	eol := newline(base)
	var cuts []insertion
	var missing, paths [][]string
	for _, registry := range b.Registries {
		path := []string{"registry", registry}
		paths = append(paths, append(path, "mirrors"))
		at, text, err := b.place(d, registry, eol)
		if err != nil {
			return nil, err
		}
		if text == "" {
			missing = append(missing, path)
			continue
		}
		cuts = append(cuts, insertion{at, text})
	}
	slices.SortStableFunc(cuts, func(x, y insertion) int { return y.at - x.at })
	out := base
	for _, c := range cuts {
		out = splice(out, c.at, c.at, c.text)
	}
	var tables []string
	for _, path := range missing {
		tables = append(tables, tableMark+eol+b.table(path[1], eol))
	}
	if b.PlainHTTP {
		if tables, err = b.addMirrorTable(d, tables, eol); err != nil {
			return nil, err
		}
	}
	if len(tables) > 0 {
		out = appendBlock(out, strings.Join(tables, eol), eol)
	}
	return out, sameMirrors(d, out, paths, []string{"registry", b.Mirror, "http"})
}

// insertion is text that is put before an offset.
type insertion struct {
	at   int
	text string
}

// place returns what to insert for one registry, and where. The text is empty if it has no table.
func (b BuildKit) place(d *document, registry, eol string) (at int, text string, err error) {
	path := []string{"registry", registry}
	for _, e := range d.exprs {
		full := e.path()
		switch {
		case e.kind == unstable.KeyValue && slices.Equal(full, append(slices.Clone(path), "mirrors")):
			open, ok := d.arrayStart(e)
			if !ok {
				return 0, "", refuse("buildkitd-toml-shape", d.name, d.number(e), "write it as a list", "has mirrors of %s that are no list", registry)
			}
			text = quoteTOML(b.Mirror)
			if list, _ := lookup(d.values, full).([]any); len(list) > 0 {
				text += ", "
			}
			return open + 1, text, nil
		case e.kind == unstable.KeyValue && len(full) <= 2 && slices.Equal(full, path[:len(full)]),
			e.kind == unstable.KeyValue && len(e.table) < 2 && len(full) > 2 && slices.Equal(full[:2], path):
			return 0, "", refuse("buildkitd-toml-shape", d.name, d.number(e), "write it as a table: [registry.\""+registry+"\"]", "has the registry %s in a form to which nothing can be added", registry)
		}
	}
	for _, e := range d.exprs {
		if e.kind != unstable.Table || !slices.Equal(e.table, path) {
			continue
		}
		text = settingMark + eol + b.setting()
		if d.data[e.end-1] == '\n' {
			return e.end, text + eol, nil
		}
		return e.end, eol + text, nil
	}
	return 0, "", nil
}

// arrayStart returns the offset of the bracket that a key's list begins with.
func (d *document) arrayStart(e expr) (int, bool) {
	rest := d.data[e.keyEnd:]
	trimmed := bytes.TrimLeft(rest, " \t")
	if len(trimmed) == 0 || trimmed[0] != '=' {
		return 0, false
	}
	trimmed = bytes.TrimLeft(trimmed[1:], " \t")
	return len(d.data) - len(trimmed), len(trimmed) > 0 && trimmed[0] == '['
}

// lookup returns the value at a path, or nil.
func lookup(values map[string]any, path []string) any {
	var at any = values
	for _, key := range path {
		table, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = table[key]
	}
	return at
}

// sameMirrors returns nil if out means the same as d, except for one more mirror at the beginning of some
// lists, and for what is at other paths.
func sameMirrors(d *document, out []byte, paths [][]string, other ...[]string) error {
	after, err := parseTOML(d.name, out)
	if err != nil {
		return err
	}
	for _, path := range paths {
		was, _ := lookup(d.values, path).([]any)
		is, _ := lookup(after.values, path).([]any)
		if len(is) != len(was)+1 || !slices.Equal(is[1:], was) {
			return refuse("toml-edit", d.name, 0, "report this file to sidemirror's authors", "cannot be edited without changing something else in it")
		}
	}
	return d.sameExcept(out, append(paths, other...)...)
}

// Settled reports whether data has sidemirror as the first mirror of each registry, and of no other.
func (b BuildKit) Settled(name string, data []byte) bool {
	d, err := parseTOML(name, data)
	if err != nil {
		return false
	}
	registries, _ := d.values["registry"].(map[string]any)
	first := 0
	for registry := range registries {
		list, _ := lookup(registries, []string{registry, "mirrors"}).([]any)
		switch at := slices.Index(list, any(b.Mirror)); {
		case at == 0 && slices.Contains(b.Registries, registry):
			first++
		case at >= 0:
			return false
		}
	}
	return first == len(b.Registries) && (!b.PlainHTTP || lookup(registries, []string{b.Mirror, "http"}) == true)
}
