package splice

import (
	"bytes"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// RemoveConfigPath removes sidemirror's setting from a containerd configuration. From a file that is
// not valid TOML it removes what still looks as [SetConfigPath] wrote it.
func RemoveConfigPath(name string, data []byte) (Removed, error) {
	d, err := parseTOML(name, data)
	if err != nil {
		rest, ok := removeSettingLines(data)
		if !ok && Marked(data) {
			return Removed{}, err
		}
		return Removed{Rest: rest, Found: ok}, nil
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
		if at := d.fileMark(); at >= 0 {
			return Removed{Rest: splice(data, at, d.lineEnd(at), ""), Found: true, Bare: len(d.exprs) == 3}, nil
		}
	}
	return Removed{Rest: data}, nil
}

// enable restores the user's line that override switched off.
func (d *document) enable(e expr, above int) []byte {
	from := above
	if mark, ok := d.marked(above, settingMark); ok {
		from = mark
	}
	text := strings.TrimPrefix(d.line(above), disabled)
	line := d.data[e.start:e.end]
	ending := line[len(bytes.TrimRight(line, "\r\n")):]
	return splice(d.data, from, e.end, text+string(ending))
}

// dropSetting removes sidemirror's two lines from a table that was there before.
func (d *document) dropSetting(from int, e expr) []byte {
	before := d.data[:from]
	if !bytes.HasSuffix(d.data[:e.end], []byte("\n")) {
		before = chomp(before)
	}
	return slices.Concat(before, d.data[e.end:])
}

// dropTable removes the table that SetConfigPath appended. What another program wrote into it since
// stays.
func (d *document) dropTable(header, e expr) (rest []byte, found bool) {
	mark, ok := d.marked(header.start, settingMark)
	if !ok {
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

// removeSettingLines is RemoveConfigPath for a file that is not valid TOML. It reports false if
// the lines below the mark are not those that sidemirror writes.
func removeSettingLines(data []byte) (rest []byte, found bool) {
	lines := slices.Collect(bytes.Lines(data))
	text := func(i int) string {
		if i >= len(lines) {
			return ""
		}
		return strings.TrimSpace(string(lines[i]))
	}
	isSetting := func(i int) bool { return strings.Contains(text(i), "config_path = ") }
	for i, line := range lines {
		if text(i) != settingMark {
			continue
		}
		before, after := slices.Concat(lines[:i]...), func(n int) []byte { return slices.Concat(lines[min(i+n, len(lines)):]...) }
		switch next := string(bytes.TrimRight(lines[min(i+1, len(lines)-1)], "\r\n")); {
		case strings.HasPrefix(next, disabled) && isSetting(i+2):
			return slices.Concat(before, []byte(strings.TrimPrefix(next, disabled)), line[len(bytes.TrimRight(line, "\r\n")):], after(3)), true
		case isSetting(i + 1):
			return slices.Concat(before, after(2)), true
		case strings.HasPrefix(next, "[") && isSetting(i+2):
			return slices.Concat(before, skipBlank(after(3))), true
		}
	}
	return data, false
}
