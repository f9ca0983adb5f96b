package splice

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
)

// check refuses keys and values that stop dockerd.
func (d *Daemon) check() error {
	if d.object.empty() {
		return nil
	}
	var values map[string]json.RawMessage
	if err := d.Decode(&values); err != nil {
		return d.syntax(err)
	}
	if err := d.checkKeys(values); err != nil {
		return err
	}
	for _, m := range d.members {
		if err := d.checkType(m); err != nil {
			return err
		}
	}
	return d.checkValues()
}

// checkKeys refuses keys that dockerd does not know. Of a repeated key it sees the last value.
func (d *Daemon) checkKeys(values map[string]json.RawMessage) error {
	for _, m := range d.members { // in the order of the file
		keys := []string{m.key}
		var object map[string]json.RawMessage
		if raw := values[m.key]; raw[0] == '{' && !flat(m.key, d.version) {
			if err := json.Unmarshal(raw, &object); err != nil {
				return d.syntax(err)
			}
			keys = slices.Sorted(maps.Keys(object))
		}
		for _, key := range keys {
			if known(key, d.version) {
				continue
			}
			hint := "remove it"
			if lower := strings.ToLower(key); known(lower, d.version) {
				hint = fmt.Sprintf("write %q", lower)
			}
			return refuse("daemon-json-unknown-key", d.name, lineAt(d.text, m.name.start), hint,
				"%q is no setting of dockerd%s, which does not start with it", key, d.of())
		}
	}
	return nil
}

// of names the version, for a message.
func (d *Daemon) of() string {
	if d.version.unknown() {
		return ""
	}
	return fmt.Sprintf(" %d.%d", d.version.Major, d.version.Minor)
}

// checkType decodes one value, even if a later one of the same name overrides it, as dockerd does.
// A name in another case gets here only with an object for a value.
func (d *Daemon) checkType(m member) error {
	s, ok := settings[m.key]
	if !ok {
		for name, other := range settings {
			if strings.EqualFold(name, m.key) {
				s, ok = other, true
			}
		}
	}
	if !ok || s.value == nil || !s.in(d.version) {
		return nil
	}
	err := json.Unmarshal(d.text[m.value.start:m.value.end], s.value(d.version))
	if err == nil {
		return nil
	}
	line := lineAt(d.text, m.value.start)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		line = lineAt(d.text, m.value.start+int(wrong.Offset)-1)
		return refuse("daemon-json-value", d.name, line, "see https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file",
			"%q has a JSON %s where dockerd expects %s", m.key, wrong.Value, expected(wrong.Type))
	}
	return refuse("daemon-json-value", d.name, line, "correct the value", "%q has a value that dockerd refuses: %v", m.key, err)
}

// expected names a type in words.
func expected(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.Int, reflect.Int64, reflect.Uint32:
		return "a whole number"
	}
	return "another type"
}

// memorySize is a size with a unit, as go-units reads it.
type memorySize struct{}

var memorySizes = lazyregexp.New(`^"[0-9]+(\.[0-9]*)? ?([kKmMgGtTpP]?[iI]?[bB]?)"$`)

// UnmarshalJSON accepts a string only.
func (*memorySize) UnmarshalJSON(raw []byte) error {
	if !memorySizes().Match(raw) {
		return fmt.Errorf("invalid size: %s", raw)
	}
	return nil
}

// checkedValues are the settings whose values dockerd checks without looking at the host.
type checkedValues struct {
	LogLevel    string   `json:"log-level"`
	LogFormat   string   `json:"log-format"`
	Labels      []string `json:"labels"`
	DNS         []string `json:"dns"`
	DNSSearch   []string `json:"dns-search"`
	ExecOpts    []string `json:"exec-opts"`
	MTU         int64    `json:"mtu"`
	Downloads   int64    `json:"max-concurrent-downloads"`
	Uploads     int64    `json:"max-concurrent-uploads"`
	Attempts    *int64   `json:"max-download-attempts"`
	StopTimeout int64    `json:"default-stop-timeout"`
	Diagnostics int64    `json:"network-diagnostic-port"`
	IPC         string   `json:"default-ipc-mode"`
	CgroupNS    string   `json:"default-cgroupns-mode"`
	CIDRv6      string   `json:"fixed-cidr-v6"`
	Firewall    string   `json:"firewall-backend"`
	CORS        string   `json:"api-cors-header"`
	Mirrors     []string `json:"registry-mirrors"`

	GatewayIP  json.RawMessage `json:"host-gateway-ip"`
	GatewayIPs json.RawMessage `json:"host-gateway-ips"`
}

// checkValues makes the checks of moby's daemon/config.Validate.
func (d *Daemon) checkValues() error {
	var c checkedValues
	_ = d.Decode(&c) // an error is about the type of a value that this version does not read
	key, text := c.wrong(d.version)
	if key == "" {
		return nil
	}
	return refuse("daemon-json-value", d.name, d.line(key), "correct the value; dockerd does not start with it", "%q: %s", key, text)
}

// wrong returns the key of the first value that dockerd v refuses, and why.
func (c *checkedValues) wrong(v Version) (key, text string) {
	modern := !v.before(23, 0)
	switch {
	case !isLogLevel(c.LogLevel):
		return "log-level", fmt.Sprintf("%q is no level", c.LogLevel)
	case !v.before(25, 0) && c.LogFormat != "" && c.LogFormat != "text" && c.LogFormat != "json":
		return "log-format", fmt.Sprintf("%q is neither text nor json", c.LogFormat)
	case modern && c.MTU < 0:
		return "mtu", "is negative"
	case c.Downloads < 0:
		return "max-concurrent-downloads", "is negative"
	case c.Uploads < 0:
		return "max-concurrent-uploads", "is negative"
	case c.Attempts != nil && (*c.Attempts < 0 || *c.Attempts == 0 && !modern):
		return "max-download-attempts", "is not positive"
	case v.atLeast(29, 0) && c.StopTimeout < 0:
		return "default-stop-timeout", "is negative"
	case v.atLeast(28, 0) && (c.Diagnostics < 0 || c.Diagnostics > 65535):
		return "network-diagnostic-port", "is no port"
	case !slices.Contains([]string{"", "private", "shareable"}, c.IPC):
		return "default-ipc-mode", fmt.Sprintf("%q is neither private nor shareable", c.IPC)
	case !slices.Contains([]string{"", "private", "host"}, c.CgroupNS):
		return "default-cgroupns-mode", fmt.Sprintf("%q is neither private nor host", c.CgroupNS)
	case v.atLeast(26, 0) && c.CIDRv6 != "" && !isPrefix6(c.CIDRv6):
		return "fixed-cidr-v6", fmt.Sprintf("%q is no IPv6 network", c.CIDRv6)
	case v.atLeast(29, 0) && !slices.Contains([]string{"", "iptables", "nftables"}, c.Firewall):
		return "firewall-backend", fmt.Sprintf("%q is neither iptables nor nftables", c.Firewall)
	case v.atLeast(28, 0) && v.Major == 28 && c.CORS != "":
		return "api-cors-header", "was removed in Docker 28"
	case v.atLeast(28, 0) && c.GatewayIP != nil && c.GatewayIPs != nil:
		return "host-gateway-ip", `cannot be set next to "host-gateway-ips"`
	}
	return c.wrongElement(v)
}

// wrongElement is wrong for the settings that are lists.
func (c *checkedValues) wrongElement(v Version) (key, text string) {
	for _, list := range []struct {
		key    string
		since  int
		values []string
		ok     func(string) bool
		text   string
	}{
		{"dns", 0, c.DNS, isAddress, "%q is no IP address"},
		{"dns-search", 0, c.DNSSearch, isSearchDomain, "%q is no domain"},
		{"labels", 0, c.Labels, isLabel, "%q is no key=value label, or its namespace is Docker's own"},
		{"exec-opts", 28, c.ExecOpts, isOption, "%q is no key=value option"},
		{mirrorsKey, 28, c.Mirrors, isMirror, "%q is no http or https URL without user, query and fragment"},
	} {
		if list.since > 0 && !v.atLeast(list.since, 0) {
			continue
		}
		for _, value := range list.values {
			if !list.ok(value) {
				return list.key, fmt.Sprintf(list.text, value)
			}
		}
	}
	return "", ""
}

func isLogLevel(s string) bool {
	return slices.Contains([]string{"", "panic", "fatal", "error", "warn", "info", "debug", "trace"}, strings.ToLower(s))
}

func isPrefix6(s string) bool {
	p, err := netip.ParsePrefix(s)
	return err == nil && p.Addr().Is6()
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(strings.TrimSpace(s))
	return err == nil
}

var searchDomain = lazyregexp.New(`^(:?(:?[a-zA-Z0-9]|(:?[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9]))(:?\.(:?[a-zA-Z0-9]|(:?[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9])))*)\.?\s*$`)

func isSearchDomain(s string) bool {
	s = strings.Trim(s, " ")
	return s == "." || strings.ContainsAny(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz") && searchDomain().MatchString(s)
}

func isLabel(s string) bool {
	if !strings.Contains(s, "=") {
		return false
	}
	lower := strings.ToLower(s)
	return !slices.ContainsFunc([]string{"com.docker.", "io.docker.", "org.dockerproject."}, func(reserved string) bool {
		return strings.HasPrefix(lower, reserved)
	})
}

// isOption checks an exec-opt; dockerd knows one only.
func isOption(s string) bool {
	key, value, _ := strings.Cut(s, "=")
	return strings.ToLower(strings.TrimSpace(key)) == "native.cgroupdriver" && strings.TrimSpace(value) != ""
}

// isMirror checks a mirror as dockerd 28 and later does when it starts (moby, registry,
// ValidateMirror). Earlier versions check it later.
func isMirror(s string) bool {
	scheme, _, ok := strings.Cut(s, "://")
	u, err := url.Parse(s)
	return ok && scheme != "" && err == nil && (u.Scheme == "http" || u.Scheme == "https") &&
		u.RawQuery == "" && u.Fragment == "" && u.User == nil
}
