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

// disabled stands before a user's line that sidemirror's line replaces.
const disabled = "#sidemirror# "

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

// SetConfigPath sets config_path of section in a containerd configuration. A line that sets it
// already stays above sidemirror's, switched off.
func SetConfigPath(name string, base []byte, section []string, folder string) ([]byte, error) {
	d, err := parseTOML(name, base)
	if err != nil {
		return nil, err
	}
	if err := d.checkSection(section); err != nil {
		return nil, err
	}
	eol := newline(base)
	is := func(kind unstable.Kind, path []string) int {
		return slices.IndexFunc(d.exprs, func(e expr) bool { return e.kind == kind && slices.Equal(e.path(), path) })
	}
	setting := `config_path = ` + quoteTOML(folder)
	key := append(slices.Clone(section), "config_path")
	var out []byte
	if i := is(unstable.KeyValue, key); i >= 0 {
		if out, err = d.override(d.exprs[i], folder, eol); err != nil {
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
	return out, d.sameExcept(out, key)
}

// checkSection refuses a section that is written so that no table can be added to it.
func (d *document) checkSection(section []string) error {
	for _, e := range d.exprs {
		path := e.path()
		if e.kind == unstable.Table || len(path) > len(section) || !slices.Equal(path, section[:len(path)]) {
			continue
		}
		return refuse("config-toml-shape", d.name, d.number(e), "write it as a [table]",
			"has %s as a value or an array, to which nothing can be added", strings.Join(path, "."))
	}
	for _, e := range d.exprs {
		path := e.path()
		above := len(e.table) < len(section)
		if above && len(path) > len(section) && slices.Equal(path[:len(section)], section) && path[len(section)] != "config_path" {
			return refuse("config-toml-shape", d.name, d.number(e), "write it as a [table]",
				"has %s as a dotted key, next to which no table can be added", strings.Join(section, "."))
		}
	}
	return nil
}

// override switches the line of e off and puts sidemirror's below it.
func (d *document) override(e expr, folder, eol string) ([]byte, error) {
	line := d.data[e.start:e.end]
	text := bytes.TrimRight(line, "\r\n")
	if e.value != unstable.String || bytes.ContainsRune(text, '\n') {
		return nil, refuse("config-toml-value", d.name, d.number(e), "write it as a string on one line", "has a config_path that is no string on one line")
	}
	ending := line[len(text):]
	own := settingMark + eol + disabled + string(text) + eol +
		string(d.data[e.start:e.valueAt]) + quoteTOML(folder) + string(ending)
	return splice(d.data, e.start, e.end, own), nil
}
