package hostconfig

import (
	"bytes"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// One line above what we wrote says whose it is. It is also how our part is
// found again where the journal is lost.
const (
	fileMark  = `# sidemirror: this file is sidemirror's; to undo: sidemirror revert`
	tableMark = `# sidemirror: this table is sidemirror's; to undo: sidemirror revert`
	markStart = `# sidemirror: this `
)

// mirror is what a registry's hosts.toml shall say.
type mirror struct {
	url string // ours

	// ca and clients are the certificates beside the file, which its being there
	// would turn off (containerd, core/remotes/docker/config, loadHostDir).
	ca      []string
	clients [][]string

	// server, if not empty, is asked last, in place of the registry itself.
	server string

	// others are asked after ours: Docker's registry-mirrors, which a hosts.toml
	// for docker.io overrides (moby, daemon/hosts.go, mergeLegacyConfig).
	others []string
}

// table is our [host] table. "referrers" is left out of the capabilities, since
// up to containerd 2.1 the word makes the whole file invalid; "push" is left out
// so that no push comes to us.
func table(url, eol string) string {
	return `[host.` + quoteTOML(url) + `]` + eol + `  capabilities = ["pull", "resolve"]` + eol
}

// fresh is a whole file.
func (m mirror) fresh() []byte {
	var b strings.Builder
	b.WriteString(fileMark + "\n")
	if len(m.ca) > 0 {
		b.WriteString("ca = " + quoteList(m.ca) + "\n")
	}
	if len(m.clients) > 0 {
		pairs := make([]string, len(m.clients))
		for i, pair := range m.clients {
			if pairs[i] = quoteList(pair); len(pair) == 1 {
				pairs[i] = quoteTOML(pair[0])
			}
		}
		b.WriteString("client = [" + strings.Join(pairs, ", ") + "]\n")
	}
	if m.server != "" {
		b.WriteString("server = " + quoteTOML(m.server) + "\n")
	}
	if len(m.ca)+len(m.clients)+len(m.server) > 0 {
		b.WriteString("\n")
	}
	b.WriteString(table(m.url, "\n"))
	for _, other := range m.others {
		b.WriteString("\n" + table(other, "\n"))
	}
	return []byte(b.String())
}

func quoteList(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = quoteTOML(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// addHosts puts our table into base, before the first other one. An empty file
// counts as none, as it does to containerd.
func addHosts(name string, base []byte, m mirror) ([]byte, error) {
	if len(base) == 0 {
		return m.fresh(), nil
	}
	d, err := parseTOML(name, base)
	if err != nil {
		return nil, err
	}
	eol := newline(base)
	block := tableMark + eol + table(m.url, eol)
	var out []byte
	if i := d.firstHost(); i >= 0 {
		at := d.aboveComments(d.exprs[i].start)
		out = splice(base, at, at, block+eol)
	} else {
		out = appendBlock(base, block, eol)
	}
	if _, err := parseTOML(name, out); err != nil {
		return nil, &problem.Problem{Path: name, Text: "has its hosts as an inline table, to which none can be added", Hint: `write them as [host."https://…"] tables`}
	}
	return out, nil
}

// firstHost is the index of the first table below [host], or -1.
func (d *document) firstHost() int {
	return slices.IndexFunc(d.exprs, func(e expr) bool {
		return e.kind != unstable.KeyValue && e.table[0] == "host"
	})
}

// aboveComments goes up from the line at start over the comments right above it,
// which belong to it.
func (d *document) aboveComments(start int) int {
	for start > 0 {
		above := d.lineStart(start - 1)
		if _, ok := d.comment(above); !ok {
			break
		}
		start = above
	}
	return start
}

// ours finds our table: the one under our mark, or one for a URL of urls, which
// are those that the journal says were written there. -1 where there is none.
func (d *document) ours(urls []string) int {
	marked := d.mark() >= 0
	for i, e := range d.exprs {
		if e.kind != unstable.Table || len(e.table) != 2 || e.table[0] != "host" {
			continue
		}
		if slices.Contains(urls, e.table[1]) || d.tableMarked(e) {
			return i
		}
		if marked {
			marked = false // only the first host of a file of ours can be ours
			if isLoopback(e.table[1]) {
				return i
			}
		}
	}
	return -1
}

// mark is the offset of the line that calls the whole file ours, or -1.
func (d *document) mark() int {
	first := -1
	for offset := range d.comments {
		text, ok := d.comment(d.lineStart(offset))
		if ok && strings.HasPrefix(text, markStart+"file") && (first < 0 || offset < first) {
			first = offset
		}
	}
	if first < 0 {
		return -1
	}
	return d.lineStart(first)
}

func (d *document) tableMarked(e expr) bool {
	if e.start == 0 {
		return false
	}
	text, ok := d.comment(d.lineStart(e.start - 1))
	return ok && strings.HasPrefix(text, markStart+"table")
}

func isLoopback(text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && addr.IsLoopback()
}

// hostsSettled reports whether data has our table as it should be, first of all.
// What else a user wrote into that table is the user's.
func hostsSettled(name string, data []byte, m mirror) bool {
	d, err := parseTOML(name, data)
	if err != nil {
		return false
	}
	first := d.firstHost()
	if first < 0 || first != d.ours([]string{m.url}) || d.exprs[first].table[1] != m.url {
		return false
	}
	hosts, _ := d.values["host"].(map[string]any)
	host, _ := hosts[m.url].(map[string]any)
	list, ok := host["capabilities"].([]any)
	return ok && len(list) == 2 && slices.Contains(list, any("pull")) && slices.Contains(list, any("resolve"))
}

// removeHosts takes our table and our mark out. found is false where there was
// nothing of ours; bare says that the file was ours and means nothing any more.
func removeHosts(name string, data []byte, urls []string) (rest []byte, found, bare bool, err error) {
	d, err := parseTOML(name, data)
	if err != nil {
		return nil, false, false, err
	}
	i := d.ours(urls)
	if i < 0 {
		return data, false, false, nil
	}
	from, to := d.tableLines(i)
	if to < len(data) {
		rest = slices.Concat(data[:from], skipBlank(data[to:]))
	} else {
		rest = dropBlock(data, from)
	}
	if at := d.mark(); at >= 0 && at < from && !d.tableMarked(d.exprs[i]) {
		rest = splice(rest, at, d.lineEnd(at), "")
	}
	return rest, true, d.onlyOurs(i), nil
}

// tableLines are the lines of the table at index i and of its own sub-tables,
// with our mark above, without comments below the last key.
func (d *document) tableLines(i int) (from, to int) {
	own := d.exprs[i].table
	from, to = d.exprs[i].start, d.exprs[i].end
	for _, e := range d.exprs[i+1:] {
		if len(e.table) < len(own) || !slices.Equal(e.table[:len(own)], own) {
			break
		}
		to = e.end
	}
	if from == 0 {
		return from, to
	}
	above := d.lineStart(from - 1)
	if text, ok := d.comment(above); ok && strings.HasPrefix(text, markStart) {
		from = above
	}
	return from, to
}

// skipBlank skips one empty line.
func skipBlank(data []byte) []byte {
	if rest := bytes.TrimPrefix(data, []byte("\r")); bytes.HasPrefix(rest, []byte("\n")) {
		return rest[1:]
	}
	return data
}

// onlyOurs reports whether, but for the table at index i, the file has only what
// [mirror.fresh] writes for certificates and for a probe.
func (d *document) onlyOurs(i int) bool {
	from, to := d.tableLines(i)
	comments := 0
	for offset := range d.comments {
		if offset < from || offset >= to {
			comments++
		}
	}
	at := d.mark()
	if at >= 0 && at < from {
		comments--
	}
	outside := func(e expr) bool {
		atTop := e.kind == unstable.KeyValue && len(e.table) == 0 && len(e.key) == 1
		written := atTop && (e.key[0] == "ca" || e.key[0] == "client" || e.key[0] == "server" && e.text == d.exprs[i].table[1])
		return (e.start < from || e.start >= to) && !written
	}
	return at >= 0 && comments == 0 && !slices.ContainsFunc(d.exprs, outside)
}
