package hostconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tailscale/hujson"

	"github.com/sidemirror/sidemirror/internal/problem"
)

const mirrorsKey = "registry-mirrors"

// daemonJSON is a daemon.json that dockerd would take, as far as can be told.
type daemonJSON struct {
	data    []byte
	members []hujson.ObjectMember
	object  hujson.Value
	array   *hujson.Value // the value of registry-mirrors; nil where there is none
	mirrors []string
}

// parseDaemonJSON makes every check that hujson does not: it takes comments and
// trailing commas, which stop dockerd, and of two keys of one name it edits the
// first, while dockerd reads the last. An empty file is an object without members.
func parseDaemonJSON(name string, data []byte) (*daemonJSON, error) {
	d := &daemonJSON{data: data}
	if bytes.HasPrefix(data, bom) {
		return nil, &problem.Problem{Path: name, Line: 1, Text: "begins with a byte order mark, which dockerd refuses", Hint: "save it without one"}
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return d, nil
	}
	// encoding/json comes first for its limit on nesting, which hujson has not.
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, &problem.Problem{Path: name, Line: jsonLine(data, err), Text: "is not JSON that dockerd takes (comments and trailing commas are not allowed): " + err.Error(),
			Hint: "mend it: dockerd would not start with it"}
	}
	var err error
	d.object, err = hujson.Parse(data)
	object, ok := d.object.Value.(*hujson.Object)
	if err != nil || !ok {
		return nil, &problem.Problem{Path: name, Text: "is not a JSON object", Hint: `write at least {}`}
	}
	d.members = object.Members
	return d, d.check(name)
}

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
func (d *daemonJSON) check(name string) error {
	seen := make(map[string]bool)
	for i := range d.members {
		m := &d.members[i]
		key, line := m.Name.Value.(hujson.Literal).String(), lineAt(d.data, m.Name.StartOffset)
		if seen[key] {
			return &problem.Problem{Path: name, Line: line, Text: fmt.Sprintf("has %q twice", key), Hint: "remove one of them: dockerd reads the last"}
		}
		seen[key] = true
		if !slices.Contains(daemonKeys, key) {
			return &problem.Problem{Path: name, Line: line, Text: fmt.Sprintf("has %q, which dockerd does not know and would not start with", key), Hint: didYouMean(key)}
		}
		if key != mirrorsKey {
			continue
		}
		d.array = &m.Value
		if err := json.Unmarshal(d.data[m.Value.StartOffset:m.Value.EndOffset], &d.mirrors); err != nil {
			return &problem.Problem{Path: name, Line: line, Text: `has "` + mirrorsKey + `" that is no list of strings`, Hint: "make it one"}
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

// daemonSettled reports whether our mirror is the first one already.
func daemonSettled(name string, data []byte, url string) bool {
	d, err := parseDaemonJSON(name, data)
	return err == nil && len(d.mirrors) > 0 && d.mirrors[0] == url
}

// addMirror puts url before all other mirrors. base has it nowhere.
func addMirror(name string, base []byte, url string) ([]byte, error) {
	d, err := parseDaemonJSON(name, base)
	if err != nil {
		return nil, err
	}
	quoted, err := json.Marshal(url)
	if err != nil {
		return nil, fmt.Errorf("writing %q as JSON: %w", url, err)
	}
	element := string(quoted)
	switch {
	case d.object.Value == nil:
		return freshDaemonJSON(element), nil
	case d.array == nil:
		return d.addMember(`"` + mirrorsKey + `": [` + element + `]`), nil
	}
	array, ok := d.array.Value.(*hujson.Array)
	if !ok { // null
		return splice(base, d.array.StartOffset, d.array.EndOffset, "["+element+"]"), nil
	}
	at := d.array.StartOffset + 1
	if len(array.Elements) == 0 {
		return splice(base, at, at, element), nil
	}
	before := string(array.Elements[0].BeforeExtra)
	if before == "" {
		return splice(base, at, at, element+", "), nil
	}
	return splice(base, at, at, before+element+","), nil
}

func freshDaemonJSON(element string) []byte {
	return []byte("{\n  \"" + mirrorsKey + "\": [" + element + "]\n}\n")
}

// addMember adds text after the last member, with the white space that it has
// before it.
func (d *daemonJSON) addMember(text string) []byte {
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

// removeMirror takes url out. original, if not nil, is what the file was before
// us: it says whether an empty list, null, or no key at all is left where there
// was no mirror but ours.
func removeMirror(name string, data []byte, url string, original []byte) (rest []byte, found bool, err error) {
	d, err := parseDaemonJSON(name, data)
	if err != nil {
		return nil, false, err
	}
	i := slices.Index(d.mirrors, url)
	if i < 0 {
		return data, false, nil
	}
	elements := d.array.Value.(*hujson.Array).Elements
	if len(elements) == 1 {
		was, err := parseDaemonJSON(name, original)
		if err != nil || was.array == nil {
			return d.removeMember(), true, nil
		}
		value := string(original[was.array.StartOffset:was.array.EndOffset])
		if was.array.Value.Kind() == '[' {
			return splice(data, d.array.StartOffset+1, elements[0].EndOffset, ""), true, nil
		}
		return splice(data, d.array.StartOffset, d.array.EndOffset, value), true, nil
	}
	if i > 0 {
		return splice(data, elements[i-1].EndOffset, elements[i].EndOffset, ""), true, nil
	}
	next := elements[1]
	if len(elements[0].BeforeExtra) == 0 {
		return splice(data, elements[0].StartOffset, next.StartOffset, ""), true, nil
	}
	return splice(data, d.array.StartOffset+1, next.StartOffset-len(next.BeforeExtra), ""), true, nil
}

// removeMember takes the whole registry-mirrors member out.
func (d *daemonJSON) removeMember() []byte {
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

// clearMirrors is data with "registry-mirrors": []. A key that is taken away and
// reloaded leaves dockerd's old mirrors in force; an empty list clears them.
func clearMirrors(name string, data []byte) ([]byte, error) {
	d, err := parseDaemonJSON(name, data)
	if err != nil || d.array == nil {
		return nil, err
	}
	return splice(data, d.array.StartOffset, d.array.EndOffset, "[]"), nil
}

// clearedFor is what dockerd has to be shown between data and after, where after
// has no list of mirrors at all; nil where it has one.
func clearedFor(name string, data, after []byte) ([]byte, error) {
	d, err := parseDaemonJSON(name, after)
	if err != nil || d.array != nil && d.array.Value.Kind() == '[' {
		return nil, err
	}
	return clearMirrors(name, data)
}

// isFreshDaemonJSON reports whether data is the file that we make where there is none.
func isFreshDaemonJSON(data []byte) bool {
	d, err := parseDaemonJSON("", data)
	if err != nil || len(d.mirrors) != 1 {
		return false
	}
	element := d.array.Value.(*hujson.Array).Elements[0]
	return bytes.Equal(data, freshDaemonJSON(string(data[element.StartOffset:element.EndOffset])))
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
