package splice

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"
)

// HostsFile is what a hosts.toml says.
type HostsFile struct {
	Server Host   // the registry itself; its name is empty if the file does not say where it is
	Hosts  []Host // in the order of the file
	Ours   bool   // a mark names sidemirror as the owner of a table or of the file
}

// Host is one host of a hosts.toml, with its TLS settings.
type Host struct {
	Name       string
	CA         []string
	Clients    [][]string // as in [Hosts]
	SkipVerify bool
}

func (m Mirror) host() Host {
	return Host{Name: m.URL, CA: m.CA, Clients: m.Clients, SkipVerify: m.SkipVerify}
}

// HasTLS reports whether the host has TLS settings of its own.
func (h Host) HasTLS() bool { return len(h.CA)+len(h.Clients) > 0 || h.SkipVerify }

// ReadHosts parses a hosts.toml, and refuses what [Hosts.Add] refuses about it.
func ReadHosts(name string, data []byte, library Version) (HostsFile, error) {
	d, err := parseHosts(name, data, library)
	if err != nil {
		return HostsFile{}, err
	}
	server, _ := d.values["server"].(string)
	file := HostsFile{Server: mirrorOf(server, d.values).host(), Ours: len(d.ownTables(nil)) > 0}
	for _, e := range d.exprs {
		if e.isHost() {
			file.Hosts = append(file.Hosts, d.mirror(e.table[1]).host())
		}
	}
	return file, nil
}

// parseHosts parses a hosts.toml whose hosts all have the one shape that every version of
// containerd reads, and whose values the library accepts.
func parseHosts(name string, data []byte, library Version) (*document, error) {
	d, err := parseTOML(name, data)
	if err != nil {
		return nil, err
	}
	if err := d.checkShape(library); err != nil {
		return nil, err
	}
	if err := d.checkTable(nil, d.values, library); err != nil {
		return nil, err
	}
	for _, e := range d.exprs {
		if e.isHost() {
			if err := d.checkTable(e.table, d.host(e.table[1]), library); err != nil {
				return nil, err
			}
		}
	}
	return d, nil
}

// checkShape refuses hosts that are no [host."URL"] tables. With a second host, containerd 1.x
// panics at the first pull if one of them is a plain value or an array, and 2.x drops those that are
// inline tables or dotted keys (containerd, core/remotes/docker/config, getSortedHosts). The
// containerd of k3s and RKE2 has a table rewrite below a host's own, which others ignore.
func (d *document) checkShape(library Version) error {
	var last []string // the header of the host's table that came last
	for _, e := range d.exprs {
		path := e.path()
		if path[0] != "host" {
			continue
		}
		if e.isHost() {
			last = path
		}
		shape := ""
		switch {
		case e.kind == unstable.ArrayTable:
			shape = "an array of tables"
		case e.kind == unstable.Table && len(path) > 2 && path[2] != "header" && (path[2] != "rewrite" || !slices.Equal(path[:2], last)):
			shape = "a table inside a host's table" // such as an address without quotes
		case e.kind == unstable.KeyValue && len(e.table) < 2 && e.value == unstable.InlineTable:
			shape = "an inline table"
		case e.kind == unstable.KeyValue && len(e.table) < 2 && len(path) > 2:
			shape = "a dotted key"
		case e.kind == unstable.KeyValue && len(e.table) < 2:
			shape = "a value"
		case library.before(2, 0) && len(path) > 1 && strings.ContainsAny(path[1], "[]"):
			return refuse("hosts-toml-address", d.name, d.number(e), "use a name or an IPv4 address",
				"has the host %q; containerd 1.x ignores a file with an IPv6 address in the name of a table", path[1])
		}
		if shape != "" {
			return refuse("hosts-toml-shape", d.name, d.number(e), `write each host as a table of its own: [host."https://mirror.example"]`,
				"has %s where containerd expects a [host.\"URL\"] table; with another host next to it, containerd drops it or panics", shape)
		}
	}
	return nil
}

// host returns the values of a host's table.
func (d *document) host(name string) map[string]any {
	hosts, _ := d.values["host"].(map[string]any)
	values, _ := hosts[name].(map[string]any)
	return values
}

func (d *document) capabilitiesOf(host string) []string {
	return stringsIn(d.host(host)["capabilities"])
}

// mirror returns the settings of a host's table.
func (d *document) mirror(host string) Mirror { return mirrorOf(host, d.host(host)) }

// mirrorOf returns the settings in a table, or in the lines before the first one.
func mirrorOf(url string, values map[string]any) Mirror {
	m := Mirror{URL: url, CA: stringsIn(values["ca"])}
	m.SkipVerify, _ = values["skip_verify"].(bool)
	clients, isList := values["client"].([]any)
	if !isList && values["client"] != nil {
		clients = []any{values["client"]}
	}
	for _, client := range clients {
		m.Clients = append(m.Clients, stringsIn(client))
	}
	return m
}

// checkTable refuses values because of which the library ignores the whole file (containerd,
// core/remotes/docker/config, parseHostConfig). table is a host's header, or nil for the root.
func (d *document) checkTable(table []string, values map[string]any, library Version) error {
	server := ""
	if table != nil {
		server = table[1]
	} else if text, ok := values["server"].(string); ok {
		server = text
	}
	if !isServer(server) || table != nil && server == "" {
		return d.wrong(table, "server", "is no URL")
	}
	for key, value := range values {
		why := ""
		switch _, text := value.(string); key {
		case "server":
			if table == nil && !text {
				why = "is no string"
			}
		case "capabilities":
			why = wrongCapabilities(value, library)
		case "ca":
			if !text && !isList(value, isString) {
				why = "is neither a string nor a list of strings"
			}
		case "client":
			if !text && !isList(value, func(v any) bool { return isString(v) || isPair(v) }) {
				why = "is no string, list of strings or list of pairs"
			}
		case "skip_verify", "override_path":
			if _, ok := value.(bool); !ok {
				why = "is neither true nor false"
			}
		case "header":
			why = wrongHeader(value)
		case "dial_timeout":
			s, _ := value.(string)
			if _, err := time.ParseDuration(s); err != nil && s != "" || !text {
				why = `is no duration such as "3s"`
			}
		}
		if why != "" && !(key == "dial_timeout" && library.before(2, 0)) {
			return d.wrong(table, key, why)
		}
	}
	return nil
}

// wrong returns the problem with the value of a key, or with the table itself.
func (d *document) wrong(table []string, key, why string) error {
	line, subject := 0, key
	for _, e := range d.exprs {
		path := e.path()
		if len(path) > len(table) && slices.Equal(path[:len(table)], table) && path[len(table)] == key {
			line = d.number(e)
			break
		}
		if line == 0 && e.kind == unstable.Table && slices.Equal(path, table) {
			line = d.number(e)
		}
	}
	if table != nil && key == "server" {
		subject = "the host " + quoteTOML(table[1])
	}
	return refuse("hosts-toml-value", d.name, line, "correct it; until then containerd ignores the whole file", "%s %s", subject, why)
}

func isServer(text string) bool {
	if text == "" {
		return true
	}
	if !strings.HasPrefix(text, "http") {
		text = "https://" + text
	}
	_, err := url.Parse(text)
	return err == nil
}

func wrongCapabilities(value any, library Version) string {
	if !isList(value, isString) {
		return "is no list of strings"
	}
	for _, word := range stringsIn(value) {
		switch strings.ToLower(word) {
		case "pull", "resolve", "push":
		case "referrers":
			if library.before(2, 2) {
				return `has "referrers", which containerd does not know before 2.2`
			}
		default:
			return "has " + quoteTOML(word) + ", which containerd does not know"
		}
	}
	return ""
}

func wrongHeader(value any) string {
	table, ok := value.(map[string]any)
	if !ok {
		return "is no table"
	}
	for name, v := range table {
		if !isString(v) && !isList(v, isString) {
			return quoteTOML(name) + " is neither a string nor a list of strings"
		}
	}
	return ""
}

func isString(value any) bool { _, ok := value.(string); return ok }

func isPair(value any) bool {
	list, _ := value.([]any)
	return len(list) == 2 && isList(value, isString)
}

// isList reports whether value is a list all of whose elements are as ok says.
func isList(value any, ok func(any) bool) bool {
	list, is := value.([]any)
	return is && !slices.ContainsFunc(list, func(v any) bool { return !ok(v) })
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
