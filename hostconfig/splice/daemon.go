package splice

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tailscale/hujson"
)

const mirrorsKey = "registry-mirrors"

// Version is an engine's version. The zero value means that it is not known.
type Version struct{ Major, Minor int }

// Daemon is a daemon.json that dockerd of some version accepts.
type Daemon struct {
	Mirrors []string // the value of registry-mirrors

	data    []byte
	members []hujson.ObjectMember
	object  hujson.Value
	array   *hujson.Value // the value of registry-mirrors; nil if there is none
}

// ReadDaemon parses a daemon.json and refuses what dockerd of that version refuses: hujson accepts
// comments and trailing commas, which stop dockerd, and of two keys of one name it edits the
// first, while dockerd reads the last. An empty file is an object without members.
func ReadDaemon(name string, data []byte, _ Version) (*Daemon, error) {
	d := &Daemon{data: data}
	if bytes.HasPrefix(data, bom) {
		return nil, &Problem{Path: name, Line: 1, Text: "begins with a byte order mark, which dockerd refuses", Hint: "save it without one"}
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return d, nil
	}
	// encoding/json comes first: it limits nesting, which hujson does not.
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, &Problem{Path: name, Line: jsonLine(data, err), Text: "is not JSON that dockerd takes (comments and trailing commas are not allowed): " + err.Error(),
			Hint: "correct it: dockerd would not start with it"}
	}
	var err error
	d.object, err = hujson.Parse(data)
	object, ok := d.object.Value.(*hujson.Object)
	if err != nil || !ok {
		return nil, &Problem{Path: name, Text: "is not a JSON object", Hint: `write at least {}`}
	}
	d.members = object.Members
	if err := d.check(name); err != nil {
		return nil, err
	}
	return d, nil
}

// Decode stores the file's settings in the struct that into points to, as dockerd reads them.
func (d *Daemon) Decode(into any) error {
	if d.object.Value == nil {
		return nil
	}
	return json.Unmarshal(d.data, into)
}

// HasList reports whether registry-mirrors is a list, and neither absent nor null.
func (d *Daemon) HasList() bool { return d.array != nil && d.array.Value.Kind() == '[' }

func jsonLine(data []byte, err error) int {
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return lineAt(data, int(syntax.Offset)-1)
	case errors.As(err, &wrong):
		return lineAt(data, int(wrong.Offset)-1)
	}
	return 0
}

// check looks at the names of the members and at the mirrors.
func (d *Daemon) check(name string) error {
	seen := make(map[string]bool)
	for i := range d.members {
		m := &d.members[i]
		key, line := m.Name.Value.(hujson.Literal).String(), lineAt(d.data, m.Name.StartOffset)
		if seen[key] {
			return &Problem{Path: name, Line: line, Text: fmt.Sprintf("has %q twice", key), Hint: "remove one of them: dockerd reads the last"}
		}
		seen[key] = true
		if !slices.Contains(daemonKeys, key) {
			return &Problem{Path: name, Line: line, Text: fmt.Sprintf("has %q, which dockerd does not know and would not start with", key), Hint: didYouMean(key)}
		}
		if key != mirrorsKey {
			continue
		}
		d.array = &m.Value
		if err := json.Unmarshal(d.data[m.Value.StartOffset:m.Value.EndOffset], &d.Mirrors); err != nil {
			return &Problem{Path: name, Line: line, Text: `has "` + mirrorsKey + `" that is no list of strings`, Hint: "make it one"}
		}
	}
	return nil
}

func didYouMean(key string) string {
	if lower := strings.ToLower(key); slices.Contains(daemonKeys, lower) {
		return fmt.Sprintf("write %q", lower)
	}
	return "remove it"
}

// AddMirror returns the file with url before all other mirrors. The file must not have it.
func (d *Daemon) AddMirror(url string) []byte {
	element := quoteJSON(url)
	switch {
	case d.object.Value == nil:
		return freshDaemonJSON(element)
	case d.array == nil:
		return d.addMember(`"` + mirrorsKey + `": [` + element + `]`)
	}
	array, ok := d.array.Value.(*hujson.Array)
	if !ok { // null
		return splice(d.data, d.array.StartOffset, d.array.EndOffset, "["+element+"]")
	}
	at := d.array.StartOffset + 1
	if len(array.Elements) == 0 {
		return splice(d.data, at, at, element)
	}
	before := string(array.Elements[0].BeforeExtra)
	if before == "" {
		return splice(d.data, at, at, element+", ")
	}
	return splice(d.data, at, at, before+element+",")
}

// quoteJSON returns s as a JSON string.
func quoteJSON(s string) string {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always has a JSON form
	}
	return string(quoted)
}

func freshDaemonJSON(element string) []byte {
	return []byte("{\n  \"" + mirrorsKey + "\": [" + element + "]\n}\n")
}

// addMember adds text after the last member, with the white space that it has
// before it.
func (d *Daemon) addMember(text string) []byte {
	if len(d.members) == 0 {
		at := d.object.StartOffset + 1
		rest := d.data[at:]
		if n := bytes.IndexByte(rest, '\n'); n >= 0 && n < bytes.IndexByte(rest, '}') {
			text = newline(rest) + "  " + text
		}
		return splice(d.data, at, at, text)
	}
	last := d.members[len(d.members)-1]
	space := string(last.Name.BeforeExtra)
	if space == "" {
		space = " "
	}
	return splice(d.data, last.Value.EndOffset, last.Value.EndOffset, ","+space+text)
}

// RemoveMirror removes every mirror of urls. If the original file is known, original is its
// content: it says whether an empty list, null or no key at all remains when the file had no
// other mirror.
func (d *Daemon) RemoveMirror(urls []string, original *Daemon) Removed {
	removed := Removed{Rest: d.data}
	bare := d.isFresh()
	for now := d; ; {
		i := slices.IndexFunc(now.Mirrors, func(m string) bool { return slices.Contains(urls, m) })
		if i < 0 {
			removed.Bare = removed.Found && bare
			return removed
		}
		removed.Rest, removed.Found = now.removeElement(i, original), true
		next, err := ReadDaemon("", removed.Rest, Version{})
		if err != nil {
			panic(err) // removing an element of a valid file leaves a valid file
		}
		now = next
	}
}

// removeElement removes the mirror at index i.
func (d *Daemon) removeElement(i int, original *Daemon) []byte {
	elements := d.array.Value.(*hujson.Array).Elements
	if len(elements) == 1 {
		if original == nil || original.array == nil {
			return d.removeMember()
		}
		if original.HasList() {
			return splice(d.data, d.array.StartOffset+1, elements[0].EndOffset, "")
		}
		value := string(original.data[original.array.StartOffset:original.array.EndOffset])
		return splice(d.data, d.array.StartOffset, d.array.EndOffset, value)
	}
	if i > 0 {
		return splice(d.data, elements[i-1].EndOffset, elements[i].EndOffset, "")
	}
	next := elements[1]
	if len(elements[0].BeforeExtra) == 0 {
		return splice(d.data, elements[0].StartOffset, next.StartOffset, "")
	}
	return splice(d.data, d.array.StartOffset+1, next.StartOffset-len(next.BeforeExtra), "")
}

// removeMember takes the whole registry-mirrors member out.
func (d *Daemon) removeMember() []byte {
	i := slices.IndexFunc(d.members, func(m hujson.ObjectMember) bool {
		return m.Name.Value.(hujson.Literal).String() == mirrorsKey
	})
	m := d.members[i]
	switch {
	case len(d.members) == 1:
		return splice(d.data, d.object.StartOffset+1, m.Value.EndOffset, "")
	case i > 0:
		return splice(d.data, d.members[i-1].Value.EndOffset, m.Value.EndOffset, "")
	}
	return splice(d.data, m.Name.StartOffset, d.members[1].Name.StartOffset, "")
}

// ClearMirrors returns the file with "registry-mirrors": []. If the key disappears and dockerd
// reloads, its old mirrors stay in force; an empty list clears them. It returns nil if the file has
// no such key.
func (d *Daemon) ClearMirrors() []byte {
	if d.array == nil {
		return nil
	}
	return splice(d.data, d.array.StartOffset, d.array.EndOffset, "[]")
}

// isFresh reports whether the file is the one that AddMirror makes if there is none.
func (d *Daemon) isFresh() bool {
	return len(d.Mirrors) == 1 && bytes.Equal(d.data, freshDaemonJSON(quoteJSON(d.Mirrors[0])))
}

// daemonKeys are the keys that dockerd 20.10 to 29 take in daemon.json (moby,
// daemon/config/config.go): the settings and, without an effect, the names of flags. One
// outside them stops it at its next start.
var daemonKeys = strings.Fields(`
	add-runtime allow-direct-routing allow-nondistributable-artifacts api-cors-header apparmor-profile
	authorization-plugin authorization-plugins bip bip6 bridge bridge-accept-fwmark builder cdi-spec-dir cdi-spec-dirs
	cgroup-parent cluster-advertise cluster-store cluster-store-opts config-file containerd containerd-namespace
	containerd-plugin-namespace containerd-plugins-namespace cpu-rt-period cpu-rt-runtime cri-containerd data-root
	debug default-address-pool default-address-pools default-cgroupns-mode default-gateway default-gateway-v6
	default-init default-ipc-mode default-network-opt default-network-opts default-runtime default-shm-size
	default-stop-timeout default-ulimit default-ulimits deprecated-key-path dns dns-opt dns-opts dns-search exec-opt
	exec-opts exec-root experimental extension-config extension-dir extension-dirs feature features firewall-backend
	fixed-cidr fixed-cidr-v6 graph group help host host-gateway-ip host-gateway-ips hosts http-proxy https-proxy icc
	init init-path insecure-registries insecure-registry ip ip-forward ip-forward-no-drop ip-masq ip6tables iptables
	ipv6 label labels live-restore log-driver log-format log-level log-opt log-opts max-concurrent-downloads
	max-concurrent-uploads max-download-attempts metrics-addr min-api-version mtu network-control-plane-mtu
	network-diagnostic-port no-new-privileges no-proxy node-generic-resource node-generic-resources nri-opts
	oom-score-adjust pidfile proxies raw-logs registry-mirror registry-mirrors restart rootless runtimes
	seccomp-profile selinux-enabled shutdown-timeout storage-driver storage-opt storage-opts
	swarm-default-advertise-addr swarm-raft-election-tick swarm-raft-heartbeat-tick tls tlscacert tlscert tlskey
	tlsverify userland-proxy userland-proxy-path userns-remap validate version`)
