package splice

import (
	"bytes"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// RemoveBuildKit removes sidemirror's mirrors from a buildkitd.toml: its tables and lines, and the hosts
// of urls from the lists of others.
func RemoveBuildKit(name string, data []byte, urls []string) (Removed, error) {
	d, err := parseTOML(name, data)
	if err != nil {
		if Marked(data) || namesAny(data, urls) {
			return Removed{}, err
		}
		return Removed{Rest: data}, nil
	}
	var tables, lines []span
	for i, e := range d.exprs {
		full := e.path()
		if e.kind != unstable.KeyValue || len(full) != 3 || full[0] != "registry" {
			continue
		}
		if full[2] == "http" && isHostOf(full[1], urls) && d.ownsTable(i) {
			tables = append(tables, d.tableOf(i))
		}
		if full[2] != "mirrors" {
			continue
		}
		list, _ := lookup(d.values, full).([]any)
		at := slices.IndexFunc(list, func(m any) bool { return isHostOf(m, urls) })
		if at < 0 {
			continue
		}
		switch {
		case len(list) == 1 && d.ownsTable(i):
			tables = append(tables, d.tableOf(i))
		case len(list) == 1 && d.hasMark(e.start, settingMark):
			mark, _ := d.marked(e.start, settingMark)
			lines = append(lines, span{mark, e.end})
		default:
			s, ok := d.element(e, list[at].(string))
			if !ok {
				return Removed{}, refuse("buildkitd-toml-shape", name, d.number(e), "remove that mirror by hand", "has sidemirror's address in a form that cannot be removed")
			}
			lines = append(lines, s)
		}
	}
	if len(tables)+len(lines) == 0 {
		return Removed{Rest: data}, nil
	}
	rest := d.cut(tables, lines)
	own := d.fileMark()
	if own >= 0 {
		rest = bytes.Replace(rest, d.data[own:d.lineEnd(own)], nil, 1)
	}
	return Removed{Rest: rest, Found: true, Bare: own >= 0 && len(bytes.TrimSpace(rest)) == 0}, nil
}

// cut removes lines within tables, and then whole tables with the empty lines between them.
func (d *document) cut(tables, lines []span) []byte {
	slices.SortFunc(lines, func(a, b span) int { return b.start - a.start })
	out := d.data
	for _, s := range lines {
		before := out[:s.start]
		if s.end == len(out) && !bytes.HasSuffix(out, []byte("\n")) && bytes.HasSuffix(before, []byte("\n")) {
			before = chomp(before) // the file had no newline at its end
		}
		out = slices.Concat(before, out[s.end:])
		for i, t := range tables {
			if t.start >= s.end {
				tables[i] = span{t.start - (s.end - s.start), t.end - (s.end - s.start)}
			}
		}
	}
	if len(tables) == 0 {
		return out
	}
	return removeTables(out, tables)
}

// tableOf returns where the table is whose only setting is at i, with its mark.
func (d *document) tableOf(i int) span {
	from := d.exprs[i-1].start
	if mark, ok := d.marked(from, tableMark); ok {
		from = mark
	}
	return span{from, d.exprs[i].end}
}

// ownsTable reports whether the setting at i is all of a table that sidemirror wrote.
func (d *document) ownsTable(i int) bool {
	if i == 0 || d.exprs[i-1].kind != unstable.Table || i+1 < len(d.exprs) && d.exprs[i+1].kind == unstable.KeyValue {
		return false
	}
	header := d.exprs[i-1]
	return d.hasMark(header.start, tableMark) || d.fileMark() >= 0 && !d.hasMark(d.exprs[i].start, settingMark)
}

func (d *document) hasMark(start int, mark string) bool {
	_, ok := d.marked(start, mark)
	return ok
}

// element returns where one string of a list is, with the comma after it, or before the last one.
func (d *document) element(e expr, text string) (span, bool) {
	open, ok := d.arrayStart(e)
	if !ok {
		return span{}, false
	}
	for _, quote := range []string{`"`, `'`} {
		quoted := []byte(quote + text + quote)
		at := bytes.Index(d.data[open:e.end], quoted)
		if at < 0 {
			continue
		}
		from := open + at
		to := from + len(quoted)
		if rest, ok := bytes.CutPrefix(d.data[to:], []byte(", ")); ok {
			return span{from, len(d.data) - len(rest)}, true
		}
		trimmed := bytes.TrimLeft(d.data[to:e.end], " \t\r\n")
		if bytes.HasPrefix(trimmed, []byte(",")) {
			return span{from, e.end - len(trimmed) + 1}, true
		}
		if before := bytes.TrimRight(d.data[open+1:from], " \t\r\n"); bytes.HasSuffix(before, []byte(",")) {
			from = open + len(before)
		}
		return span{from, to}, true
	}
	return span{}, false
}

// isHostOf reports whether a mirror is the host of one of some URLs.
func isHostOf(mirror any, urls []string) bool {
	text, _ := mirror.(string)
	return text != "" && slices.ContainsFunc(urls, func(url string) bool { return url == "http://"+text })
}

func namesAny(data []byte, urls []string) bool {
	return slices.ContainsFunc(urls, func(url string) bool {
		_, host, _ := strings.Cut(url, "://")
		return host != "" && bytes.Contains(data, []byte(host))
	})
}
