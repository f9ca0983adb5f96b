package splice

import (
	"bytes"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// RemoveHosts removes sidemirror's tables and mark: the marked tables, and one for a URL of urls,
// which the journal recorded for this file. From a file that is not valid TOML it removes what still
// looks as [Hosts.Add] wrote it.
func RemoveHosts(name string, data []byte, urls []string) (Removed, error) {
	d, err := parseTOML(name, data)
	if err != nil {
		rest, ok := removeLines(data)
		if !ok && Marked(data) {
			return Removed{}, err
		}
		return Removed{Rest: rest, Found: ok}, nil
	}
	own := d.ownTables(urls)
	if len(own) == 0 {
		return Removed{Rest: data}, nil
	}
	var spans []span
	for _, i := range own {
		from, to := d.tableLines(i)
		spans = append(spans, span{from, to})
	}
	rest := removeTables(data, spans)
	if at := d.fileMark(); at >= 0 && at < spans[0].start {
		rest = splice(rest, at, d.lineEnd(at), "")
	}
	return Removed{Rest: rest, Found: true, Bare: d.onlyOwn(own, spans)}, nil
}

// removeTables removes spans, which are whole lines, and one empty line with each: the one below, or
// for those at the end of the file the one above the first of them.
func removeTables(data []byte, spans []span) []byte {
	last, end := len(spans), len(data)
	for last > 0 && (spans[last-1].end == end || end < len(data) && len(skipBlank(data[spans[last-1].end:end])) == 0) {
		last--
		end = spans[last].start
	}
	if last < len(spans) {
		data = dropBlock(data, spans[last].start)
	}
	var rest []byte
	from := 0
	for _, s := range spans[:last] {
		rest = append(rest, data[from:s.start]...)
		from = len(data) - len(skipBlank(data[s.end:]))
	}
	return append(rest, data[from:]...)
}

// ownTables returns the indexes of sidemirror's tables: those under a mark, the first one of a file
// that is sidemirror's, and those for a URL of urls.
func (d *document) ownTables(urls []string) []int {
	var own []int
	first := d.fileMark() >= 0
	for i, e := range d.exprs {
		if !e.isHost() {
			continue
		}
		if _, marked := d.marked(e.start, tableMark); marked || hasURL(urls, e.table[1]) || first && IsLoopback(e.table[1]) {
			own = append(own, i)
		}
		first = false
	}
	return own
}

// tableLines returns the lines of the table at index i and of its own sub-tables, with the mark
// above, without comments below the last key.
func (d *document) tableLines(i int) (from, to int) {
	own := d.exprs[i].table
	from, to = d.exprs[i].start, d.exprs[i].end
	for _, e := range d.exprs[i+1:] {
		if len(e.table) < len(own) || !slices.Equal(e.table[:len(own)], own) {
			break
		}
		to = e.end
	}
	if above, ok := d.marked(from, tableMark); ok {
		return above, to
	}
	return from, to
}

// onlyOwn reports whether the file is sidemirror's, and has nothing but the tables at the indexes of
// own, whose lines are spans, and what [Hosts.File] writes for certificates and for a probe.
func (d *document) onlyOwn(own []int, spans []span) bool {
	mark := d.fileMark()
	if mark < 0 {
		return false
	}
	inside := func(offset int) bool {
		i, exact := slices.BinarySearchFunc(spans, offset, func(s span, at int) int { return s.start - at })
		return exact || i > 0 && offset < spans[i-1].end
	}
	for offset := range d.comments {
		if d.lineStart(offset) != mark && !inside(offset) {
			return false
		}
	}
	return !slices.ContainsFunc(d.exprs, func(e expr) bool {
		atTop := e.kind == unstable.KeyValue && len(e.table) == 0 && len(e.key) == 1
		written := atTop && (e.key[0] == "ca" || e.key[0] == "client" || e.key[0] == "server" && SameURL(e.text, d.exprs[own[0]].table[1]))
		return !written && !inside(e.start)
	})
}

// removeLines is RemoveHosts for a file that is not valid TOML: it removes each mark, with the lines
// below it that sidemirror writes, and one empty line.
func removeLines(data []byte) (rest []byte, found bool) {
	headers, blanks := 0, 0 // how many may still follow the last mark
	for line := range bytes.Lines(data) {
		text := strings.TrimRight(string(line), "\r\n")
		header := strings.HasPrefix(text, "[host.\"")
		switch {
		case text == tableMark:
			found, headers, blanks = true, 1, 1
			continue
		case text == FileMark:
			found, headers, blanks = true, 1, 2
			continue
		case header && headers > 0:
			headers = 0
			continue
		case text == "" && blanks > 0:
			blanks--
			continue
		case blanks > 0 && !header && isOwnLine(text):
			continue
		}
		headers, blanks = 0, 0
		rest = append(rest, line...)
	}
	return rest, found
}

// isOwnLine reports whether sidemirror writes such a line.
func isOwnLine(text string) bool {
	text = strings.TrimPrefix(text, "  ")
	for _, start := range []string{"capabilities = [\"pull\", \"resolve\"", "ca = [\"", "client = [", "skip_verify = true", "server = \"http"} {
		if strings.HasPrefix(text, start) {
			return true
		}
	}
	return false
}
