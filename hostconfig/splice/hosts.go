package splice

import (
	"bytes"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// Hosts is what a registry's hosts.toml should say.
type Hosts struct {
	URL string // sidemirror's address

	// CA and Clients are certificates next to the file. Without these lines the file would switch
	// them off (containerd, core/remotes/docker/config, loadHostDir). A client is a certificate's
	// name, or the names of a certificate and its key.
	CA      []string
	Clients [][]string

	// Server is asked last instead of the registry itself, unless it is empty.
	Server string

	// Mirrors are asked after sidemirror: Docker's registry-mirrors, which a hosts.toml for
	// docker.io overrides (moby, daemon/hosts.go, mergeLegacyConfig).
	Mirrors []Mirror
}

// Mirror is another mirror of a registry, with its own TLS settings.
type Mirror struct {
	URL        string
	CA         []string
	Clients    [][]string
	SkipVerify bool
}

// table is our [host] table. "referrers" is left out of the capabilities, since
// up to containerd 2.1 the word makes the whole file invalid; "push" is left out
// so that no push comes to us.
func table(url, eol string) string {
	return `[host.` + quoteTOML(url) + `]` + eol + `  capabilities = ["pull", "resolve"]` + eol
}

// File returns a whole hosts.toml.
func (m Hosts) File() []byte {
	var b strings.Builder
	b.WriteString(FileMark + "\n")
	if len(m.CA) > 0 {
		b.WriteString("ca = " + quoteList(m.CA) + "\n")
	}
	if len(m.Clients) > 0 {
		pairs := make([]string, len(m.Clients))
		for i, pair := range m.Clients {
			if pairs[i] = quoteList(pair); len(pair) == 1 {
				pairs[i] = quoteTOML(pair[0])
			}
		}
		b.WriteString("client = [" + strings.Join(pairs, ", ") + "]\n")
	}
	if m.Server != "" {
		b.WriteString("server = " + quoteTOML(m.Server) + "\n")
	}
	if len(m.CA)+len(m.Clients)+len(m.Server) > 0 {
		b.WriteString("\n")
	}
	b.WriteString(table(m.URL, "\n"))
	for _, other := range m.Mirrors {
		b.WriteString("\n" + table(other.URL, "\n"))
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

// Add inserts sidemirror's table into base, before the first other one. An empty file
// counts as none, as it does to containerd.
func (m Hosts) Add(name string, base []byte) ([]byte, error) {
	if len(base) == 0 {
		return m.File(), nil
	}
	d, err := parseTOML(name, base)
	if err != nil {
		return nil, err
	}
	eol := newline(base)
	block := tableMark + eol + table(m.URL, eol)
	var out []byte
	if i := d.firstHost(); i >= 0 {
		at := d.aboveComments(d.exprs[i].start)
		out = splice(base, at, at, block+eol)
	} else {
		out = appendBlock(base, block, eol)
	}
	if _, err := parseTOML(name, out); err != nil {
		return nil, &Problem{Path: name, Text: "has its hosts as an inline table, to which none can be added", Hint: `write them as [host."https://…"] tables`}
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
			if IsLoopback(e.table[1]) {
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

// IsLoopback reports whether the host of a URL is localhost or a loopback address.
func IsLoopback(text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && addr.IsLoopback()
}

// Settled reports whether data has our table as it should be, first of all.
// What else a user wrote into that table is the user's.
func (m Hosts) Settled(name string, data []byte) bool {
	d, err := parseTOML(name, data)
	if err != nil {
		return false
	}
	first := d.firstHost()
	if first < 0 || first != d.ours([]string{m.URL}) || d.exprs[first].table[1] != m.URL {
		return false
	}
	hosts, _ := d.values["host"].(map[string]any)
	host, _ := hosts[m.URL].(map[string]any)
	list, ok := host["capabilities"].([]any)
	return ok && len(list) == 2 && slices.Contains(list, any("pull")) && slices.Contains(list, any("resolve"))
}

// RemoveHosts removes sidemirror's table and mark: the marked table, or one for a URL of urls,
// which the journal recorded for this file.
func RemoveHosts(name string, data []byte, urls []string) (Removed, error) {
	d, err := parseTOML(name, data)
	if err != nil {
		return Removed{}, err
	}
	i := d.ours(urls)
	if i < 0 {
		return Removed{Rest: data}, nil
	}
	var rest []byte
	from, to := d.tableLines(i)
	if to < len(data) {
		rest = slices.Concat(data[:from], skipBlank(data[to:]))
	} else {
		rest = dropBlock(data, from)
	}
	if at := d.mark(); at >= 0 && at < from && !d.tableMarked(d.exprs[i]) {
		rest = splice(rest, at, d.lineEnd(at), "")
	}
	return Removed{Rest: rest, Found: true, Bare: d.onlyOurs(i)}, nil
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
// [Hosts.File] writes for certificates and for a probe.
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

// HostsFile is what a hosts.toml says.
type HostsFile struct {
	Server string
	CA     []string
	Hosts  []Host // in no particular order
	Ours   bool   // sidemirror's table is marked as such
}

// Host is one host of a hosts.toml.
type Host struct {
	Name  string
	CA    []string
	Table bool // it has a table of its own, and is no dotted key or inline table
}

// ReadHosts parses a hosts.toml.
func ReadHosts(name string, data []byte) (HostsFile, error) {
	d, err := parseTOML(name, data)
	if err != nil {
		return HostsFile{}, err
	}
	server, _ := d.values["server"].(string)
	file := HostsFile{Server: server, CA: stringsIn(d.values["ca"]), Ours: d.ours(nil) >= 0}
	tables := make(map[string]bool)
	for _, e := range d.exprs {
		if e.kind == unstable.Table && len(e.table) >= 2 && e.table[0] == "host" {
			tables[e.table[1]] = true
		}
	}
	hosts, _ := d.values["host"].(map[string]any)
	for name, value := range hosts {
		fields, _ := value.(map[string]any)
		file.Hosts = append(file.Hosts, Host{Name: name, CA: stringsIn(fields["ca"]), Table: tables[name]})
	}
	return file, nil
}

// stringsIn returns the strings of a value that is a string or a list.
func stringsIn(value any) []string {
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	var texts []string
	for _, item := range list {
		if text, ok := item.(string); ok {
			texts = append(texts, text)
		}
	}
	return texts
}
