package splice

import (
	"bytes"
	"net/url"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// Hosts is what a registry's hosts.toml should say.
type Hosts struct {
	// URL is sidemirror's address: "http://127.0.0.1:305". An IPv6 address is refused: containerd 1.x
	// cannot parse it in the name of a table and ignores the whole file.
	URL string

	// Registry is the registry that the file is for: "docker.io".
	Registry string

	// Library is the version of the containerd library in the engine that reads the file; the oldest, if
	// several read it. "referrers" is among the capabilities from 2.2 on: an older library rejects the
	// whole file because of that word, and a newer one does not ask sidemirror for referrers without it.
	Library Version

	// CA and Clients are certificates next to the file. Without these lines the file would switch
	// them off (containerd, core/remotes/docker/config, loadHostDir). A client is a certificate's
	// name, or the names of a certificate and its key.
	CA      []string
	Clients [][]string

	// Server is asked last instead of the registry itself, unless it is empty.
	Server string

	// Mirrors are asked after sidemirror. They are Docker's registry-mirrors, which dockerd ignores
	// if docker.io/hosts.toml has a host (moby, daemon/hosts.go, mergeLegacyConfig). A file that
	// lists hosts already does not get them.
	Mirrors []Mirror
}

// Mirror is another mirror of a registry, with its own TLS settings.
type Mirror struct {
	URL        string
	CA         []string
	Clients    [][]string
	SkipVerify bool
}

// capabilities returns the words that the engine's library knows. "push" is never among them, so
// that no push comes to a mirror.
func (h Hosts) capabilities() []string {
	if h.Library.atLeast(2, 2) {
		return []string{"pull", "resolve", "referrers"}
	}
	return []string{"pull", "resolve"}
}

// table returns the [host] table of one mirror.
func (h Hosts) table(m Mirror, eol string) string {
	return "[host." + quoteTOML(m.URL) + "]" + eol + "  capabilities = " + quoteList(h.capabilities()) + eol + tlsLines(m, "  ", eol)
}

func tlsLines(m Mirror, indent, eol string) string {
	text := ""
	if len(m.CA) > 0 {
		text += indent + "ca = " + quoteList(m.CA) + eol
	}
	if len(m.Clients) > 0 {
		pairs := make([]string, len(m.Clients))
		for i, pair := range m.Clients {
			if pairs[i] = quoteList(pair); len(pair) == 1 {
				pairs[i] = quoteTOML(pair[0])
			}
		}
		text += indent + "client = [" + strings.Join(pairs, ", ") + "]" + eol
	}
	if m.SkipVerify {
		text += indent + "skip_verify = true" + eol
	}
	return text
}

// tables returns sidemirror's table and those of the other mirrors, each mirror once. marks says
// whether the first one has a mark of its own.
func (h Hosts) tables(mark bool, eol string) string {
	text := h.table(Mirror{URL: h.URL}, eol)
	if mark {
		text = tableMark + eol + text
	}
	for _, m := range h.others() {
		text += eol + tableMark + eol + h.table(m, eol)
	}
	return text
}

// others returns the other mirrors, without sidemirror itself and without repetitions.
func (h Hosts) others() []Mirror {
	var list []Mirror
	for _, m := range h.Mirrors {
		same := func(o Mirror) bool { return SameURL(o.URL, m.URL) }
		if !SameURL(m.URL, h.URL) && !slices.ContainsFunc(list, same) {
			list = append(list, m)
		}
	}
	return list
}

// File returns a whole hosts.toml.
func (h Hosts) File() []byte {
	text := FileMark + "\n"
	root := tlsLines(Mirror{CA: h.CA, Clients: h.Clients}, "", "\n")
	if h.Server != "" {
		root += "server = " + quoteTOML(h.Server) + "\n"
	}
	if root != "" {
		text += root + "\n"
	}
	return []byte(text + h.tables(false, "\n"))
}

// Add inserts sidemirror's table into base, before the first other host. An empty file counts as
// none, as it does to containerd. base must have no entry of sidemirror.
func (h Hosts) Add(name string, base []byte) ([]byte, error) {
	if err := h.checkURLs(name); err != nil {
		return nil, err
	}
	if len(base) == 0 {
		return h.File(), nil
	}
	d, err := parseHosts(name, base, h.Library)
	if err != nil {
		return nil, err
	}
	if err := h.checkBase(d); err != nil {
		return nil, err
	}
	eol := newline(base)
	var out []byte
	added := [][]string{{"host", h.URL}}
	if i := d.firstHost(); i >= 0 {
		at := max(d.aboveComments(d.exprs[i].start), GeneratedHeader(base, ""))
		out = splice(base, at, at, tableMark+eol+h.table(Mirror{URL: h.URL}, eol)+eol)
	} else {
		out = appendBlock(base, h.tables(true, eol), eol)
		for _, m := range h.others() {
			added = append(added, []string{"host", m.URL})
		}
	}
	return out, d.sameExcept(out, added...)
}

// checkURLs refuses addresses that the engine could not read.
func (h Hosts) checkURLs(name string) error {
	if strings.Contains(h.URL, "[") {
		return refuse("hosts-toml-address", name, 0, "let sidemirror listen on 127.0.0.1 too",
			"cannot name %s: containerd 1.x ignores a hosts.toml with an IPv6 address in the name of a table", h.URL)
	}
	for _, m := range h.Mirrors {
		if strings.Contains(m.URL, "[") && !h.Library.atLeast(2, 0) {
			return refuse("hosts-toml-address", name, 0, "use a name or an IPv4 address for that mirror",
				"cannot name the mirror %s: containerd 1.x ignores a hosts.toml with an IPv6 address in the name of a table", m.URL)
		}
	}
	return nil
}

// checkBase refuses a file in which sidemirror's table would change more than the first host.
func (h Hosts) checkBase(d *document) error {
	for _, e := range d.exprs {
		if e.isHost() && SameHost(e.table[1], h.URL) {
			return refuse("hosts-toml-address", d.name, d.number(e), "remove that table, or make it the first",
				"has sidemirror's address as a host already")
		}
	}
	if d.firstHost() >= 0 || h.Library.atLeast(2, 0) {
		return nil
	}
	// containerd 1.6, and 1.7 in most of its versions, ignores a file without a [host] table.
	for _, e := range d.exprs {
		if e.kind == unstable.KeyValue && len(e.path()) == 1 && e.key[0] == "server" && isServerOf(e.text, h.Registry) {
			continue
		}
		return refuse("hosts-toml-root-only", d.name, d.number(e), "check that "+strings.Join(e.path(), ".")+" is right and add a [host.\"…\"] table, or remove it",
			"has no [host] table, so containerd 1.x ignores it; with sidemirror's table %s would take effect", strings.Join(e.path(), "."))
	}
	if len(h.CA)+len(h.Clients) > 0 {
		return refuse("hosts-toml-root-only", d.name, 0, "remove the file; sidemirror then writes one that names the certificates",
			"has no [host] table, so containerd 1.x ignores it and uses the certificates next to it; with sidemirror's table it would not")
	}
	return nil
}

// isServerOf reports whether a server is the registry itself, which containerd asks last anyway.
func isServerOf(server, registry string) bool {
	if !strings.Contains(server, "://") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.RawQuery != "" {
		return false
	}
	if registry == "docker.io" {
		registry = "registry-1.docker.io"
	}
	path := strings.TrimSuffix(u.Path, "/")
	return registry != "" && strings.EqualFold(u.Host, registry) && (path == "" || path == "/v2")
}

// Settled reports whether data has sidemirror's table as it should be, before all other hosts, and
// the other mirrors if there is no host but sidemirror's. What a user added to sidemirror's table is
// the user's.
func (h Hosts) Settled(name string, data []byte) bool {
	d, err := parseHosts(name, data, h.Library)
	if err != nil {
		return false
	}
	first := d.firstHost()
	if first < 0 || !d.exprs[first].isHost() || !reaches(withoutVersion(d.exprs[first].table[1]), h.URL) {
		return false
	}
	capabilities := d.capabilitiesOf(d.exprs[first].table[1])
	own := d.ownTables(nil)
	if !slices.Contains(own, first) { // a user's own table
		return slices.Contains(capabilities, "pull") && slices.Contains(capabilities, "resolve") && !slices.Contains(capabilities, "push")
	}
	if !slices.Equal(capabilities, h.capabilities()) {
		return false
	}
	var others []Mirror
	for i, e := range d.exprs {
		switch {
		case i == first || e.kind != unstable.Table || e.table[0] != "host" || len(e.table) < 2:
		case slices.Contains(own, i):
			others = append(others, d.mirror(e.table[1]))
		case e.isHost() || !slices.ContainsFunc(own, func(o int) bool { return d.exprs[o].table[1] == e.table[1] }):
			return true // the user's own hosts replace the other mirrors
		}
	}
	return slices.EqualFunc(others, h.others(), func(a, b Mirror) bool {
		return SameURL(a.URL, b.URL) && tlsLines(a, "", "") == tlsLines(b, "", "")
	})
}

// isHost reports whether e is the header of a host's table.
func (e expr) isHost() bool {
	return e.kind == unstable.Table && len(e.table) == 2 && e.table[0] == "host"
}

// firstHost returns the index of the first table below [host], or -1.
func (d *document) firstHost() int {
	return slices.IndexFunc(d.exprs, func(e expr) bool {
		return e.kind == unstable.Table && len(e.table) >= 2 && e.table[0] == "host"
	})
}

// GeneratedHeader returns the length of the first line if that says that a program generated the
// file, as k3s and RKE2 do: they recognise their files by that line at their next start, so that it
// has to stay the first one. It returns 0 for another line, or if program is another one; "" stands
// for all programs.
func GeneratedHeader(data []byte, program string) int {
	first, _, _ := bytes.Cut(data, []byte("\n"))
	if !bytes.HasPrefix(first, []byte("# File generated by "+program)) || len(first) == len(data) {
		return 0
	}
	return len(first) + 1
}

// aboveComments returns the start of the comments right above the line at start, which belong to it.
func (d *document) aboveComments(start int) int {
	for {
		above, ok := d.above(start)
		if !ok {
			return start
		}
		start = above
	}
}
