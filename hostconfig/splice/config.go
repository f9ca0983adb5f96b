package splice

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// The sections of a containerd configuration that contain config_path, by its version.
var (
	SectionV1 = []string{"plugins", "cri", "registry"}
	SectionV2 = []string{"plugins", "io.containerd.grpc.v1.cri", "registry"}
	SectionV3 = []string{"plugins", "io.containerd.cri.v1.images", "registry"}
)

const (
	settingMark = `# sidemirror: this setting is sidemirror's; to undo: sidemirror revert`
	// disabled stands before a user's line that ours takes the place of.
	disabled = "#sidemirror# "
)

// NewConfig returns a config.toml, or a drop-in for one, that sets config_path and nothing else.
func NewConfig(version int, section []string, folder string) []byte {
	return []byte(FileMark + "\nversion = " + strconv.Itoa(version) + "\n\n" + settingTable(section, folder, "\n"))
}

func settingTable(section []string, folder, eol string) string {
	names := make([]string, len(section))
	for i, name := range section {
		if names[i] = name; strings.Contains(name, ".") {
			names[i] = quoteTOML(name)
		}
	}
	return "[" + strings.Join(names, ".") + "]" + eol + "  config_path = " + quoteTOML(folder) + eol
}

// SetConfigPath sets config_path of section in a containerd configuration. A
// line that sets it already is kept beside ours, switched off.
func SetConfigPath(name string, base []byte, section []string, folder string) ([]byte, error) {
	d, err := parseTOML(name, base)
	if err != nil {
		return nil, err
	}
	eol := newline(base)
	is := func(kind unstable.Kind, path []string) int {
		return slices.IndexFunc(d.exprs, func(e expr) bool { return e.kind == kind && slices.Equal(e.path(), path) })
	}
	setting := `config_path = ` + quoteTOML(folder)
	var out []byte
	if i := is(unstable.KeyValue, append(slices.Clone(section), "config_path")); i >= 0 {
		if out, err = d.override(name, d.exprs[i], folder, eol); err != nil {
			return nil, err
		}
	} else if i := is(unstable.Table, section); i >= 0 {
		e := d.exprs[i]
		if base[e.end-1] == '\n' {
			out = splice(base, e.end, e.end, settingMark+eol+setting+eol)
		} else {
			out = splice(base, e.end, e.end, eol+settingMark+eol+setting)
		}
	} else {
		out = appendBlock(base, settingMark+eol+settingTable(section, folder, eol), eol)
	}
	if _, err := parseTOML(name, out); err != nil {
		return nil, &Problem{Path: name, Text: "has " + strings.Join(section, ".") + " as an inline table or with dotted keys, to which nothing can be added",
			Hint: "write it as a [table]"}
	}
	return out, nil
}

// override switches e's line off and puts ours below it.
func (d *document) override(name string, e expr, folder, eol string) ([]byte, error) {
	line := d.data[e.start:e.end]
	text := bytes.TrimRight(line, "\r\n")
	if e.value != unstable.String || bytes.ContainsRune(text, '\n') {
		return nil, &Problem{Path: name, Line: lineAt(d.data, e.start), Text: "has a config_path that is no string on one line", Hint: "write it as one"}
	}
	ending := line[len(text):]
	ours := settingMark + eol + disabled + string(text) + eol +
		string(d.data[e.start:e.valueAt]) + quoteTOML(folder) + string(ending)
	return splice(d.data, e.start, e.end, ours), nil
}

// RemoveConfigPath removes sidemirror's setting from a containerd configuration.
func RemoveConfigPath(name string, data []byte) (Removed, error) {
	d, err := parseTOML(name, data)
	if err != nil {
		return Removed{}, err
	}
	for i, e := range d.exprs {
		if e.kind != unstable.KeyValue || e.key[len(e.key)-1] != "config_path" {
			continue
		}
		if above, ok := d.above(e.start); ok && strings.HasPrefix(d.line(above), disabled) {
			return Removed{Rest: d.enable(e, above), Found: true}, nil
		} else if ok && d.line(above) == settingMark {
			return Removed{Rest: d.dropSetting(above, e), Found: true}, nil
		}
		if i == 0 || d.exprs[i-1].kind != unstable.Table || d.exprs[i-1].end != e.start {
			continue
		}
		if rest, found := d.dropTable(d.exprs[i-1], e); found {
			return Removed{Rest: rest, Found: true}, nil
		}
		if at := d.mark(); at >= 0 {
			return Removed{Rest: splice(data, at, d.lineEnd(at), ""), Found: true, Bare: len(d.exprs) == 3}, nil
		}
	}
	return Removed{Rest: data}, nil
}

// above is the start of the line above the one at start, if that is a comment.
func (d *document) above(start int) (int, bool) {
	if start == 0 {
		return 0, false
	}
	above := d.lineStart(start - 1)
	_, ok := d.comment(above)
	return above, ok
}

// line is the line at start without its ending.
func (d *document) line(start int) string {
	return strings.TrimRight(string(d.data[start:d.lineEnd(start)]), "\r\n")
}

// enable gives the user's line back that override switched off.
func (d *document) enable(e expr, above int) []byte {
	from := above
	if mark, ok := d.above(above); ok && d.line(mark) == settingMark {
		from = mark
	}
	text := strings.TrimPrefix(d.line(above), disabled)
	line := d.data[e.start:e.end]
	ending := line[len(bytes.TrimRight(line, "\r\n")):]
	return splice(d.data, from, e.end, text+string(ending))
}

// dropSetting takes our two lines out of a table that was there before us.
func (d *document) dropSetting(from int, e expr) []byte {
	before := d.data[:from]
	if !bytes.HasSuffix(d.data[:e.end], []byte("\n")) {
		before = chomp(before)
	}
	return slices.Concat(before, d.data[e.end:])
}

// dropTable takes out the table that we appended, but for what somebody else
// wrote into it since.
func (d *document) dropTable(header, e expr) (rest []byte, found bool) {
	mark, ok := d.above(header.start)
	if !ok || d.line(mark) != settingMark {
		return nil, false
	}
	if e.end == len(d.data) {
		return dropBlock(d.data, mark), true
	}
	for _, other := range d.exprs {
		if other.start >= e.end {
			if slices.Equal(other.table, header.table) {
				return slices.Concat(d.data[:mark], d.data[header.start:e.start], d.data[e.end:]), true
			}
			break
		}
	}
	return slices.Concat(d.data[:mark], skipBlank(d.data[e.end:])), true
}

// CheckConfig refuses a containerd configuration that is not valid TOML. empty is true for a file
// without any setting.
func CheckConfig(name string, data []byte) (empty bool, err error) {
	d, err := parseTOML(name, data)
	return err == nil && len(d.exprs) == 0, err
}
