package splice

import (
	"bytes"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// registriesEnd is the last line of what sidemirror writes into a drop-in for registries.conf.
const registriesEnd = `# sidemirror: this is the end of sidemirror's entries`

// RemoveRegistries removes sidemirror's entries from a drop-in for registries.conf: all from the first
// mark to the last. If a program has rewritten the file without its comments, it removes the mirrors
// whose address is one of urls, and the entries that say nothing without them.
func RemoveRegistries(name string, data []byte, urls []string) (Removed, error) {
	if from, to, ok := markedLines(data); ok {
		rest := slices.Concat(data[:from], data[to:])
		return Removed{Rest: rest, Found: true, Bare: len(bytes.TrimSpace(rest)) == 0}, nil
	}
	d, err := parseTOML(name, bytes.TrimPrefix(data, bom))
	if err != nil {
		if Marked(data) {
			return Removed{}, err
		}
		return Removed{Rest: data}, nil
	}
	spans := d.mirrorTables(urls)
	if len(spans) == 0 {
		return Removed{Rest: data}, nil
	}
	var rest []byte
	from := 0
	for _, s := range spans {
		rest = append(rest, d.data[from:s.start]...)
		from = s.end
	}
	rest = append(rest, d.data[from:]...)
	if _, err := ReadRegistries(name, rest); err != nil {
		return Removed{}, refuse("toml-edit", name, 0, "remove sidemirror's mirrors from it by hand", "cannot be edited without changing something else in it")
	}
	return Removed{Rest: rest, Found: true, Bare: len(bytes.TrimSpace(rest)) == 0}, nil
}

// markedLines returns where the lines from the first mark to the last begin and end.
func markedLines(data []byte) (from, to int, ok bool) {
	from = -1
	at := 0
	for line := range bytes.Lines(data) {
		text := strings.TrimSpace(string(line))
		if text == FileMark && from < 0 {
			from = at
		}
		at += len(line)
		if text == registriesEnd && from >= 0 {
			return from, at, true
		}
	}
	return 0, 0, false
}

// mirrorTables returns the lines of the [[registry.mirror]] tables that name sidemirror, and of the
// [[registry]] tables that have no other mirror and whose location is their prefix.
func (d *document) mirrorTables(urls []string) (spans []span) {
	headers := d.headers()
	for i := 0; i < len(headers); {
		first := i
		for i++; i < len(headers) && slices.Equal(headers[i].table, []string{"registry", "mirror"}); {
			i++
		}
		group := headers[first:i]
		if !slices.Equal(group[0].table, []string{"registry"}) {
			continue
		}
		var own []span
		for _, h := range group[1:] {
			if namesOne(h.values["location"], urls) {
				own = append(own, span{h.start, h.end})
			}
		}
		set := group[0].values
		if len(own) > 0 && len(own) == len(group)-1 && len(set) == 2 && set["prefix"] == set["location"] {
			own = []span{{group[0].start, group[len(group)-1].end}}
		}
		spans = append(spans, own...)
	}
	return spans
}

// header is a table with its lines and its strings.
type header struct {
	table      []string
	values     map[string]string
	start, end int
}

// headers returns the tables of a file in their order.
func (d *document) headers() (list []header) {
	for _, e := range d.exprs {
		if e.kind != unstable.KeyValue {
			if n := len(list); n > 0 {
				list[n-1].end = e.start
			}
			list = append(list, header{table: e.table, values: make(map[string]string), start: e.start, end: len(d.data)})
		} else if n := len(list); n > 0 {
			list[n-1].values[strings.ToLower(strings.Join(e.key, "."))] = e.text
		}
	}
	return list
}

// namesOne reports whether a location is below the host of one of some URLs.
func namesOne(location string, urls []string) bool {
	return slices.ContainsFunc(urls, func(url string) bool {
		_, host, _ := strings.Cut(url, "://")
		return host != "" && strings.HasPrefix(location, host+"/")
	})
}
