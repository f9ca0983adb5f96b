package splice

import (
	"bytes"
	"strings"
)

// DropIn is sidemirror's entry in a drop-in file of a systemd service: what the service may do that its
// unit denies.
type DropIn struct{ Allow []Allowance }

// Allowance is something that a service may do, and why: to reach addresses
// (systemd.resource-control(5)), or to use a capability (systemd.exec(5)).
type Allowance struct {
	Why        string // one line, for a person
	Addresses  []string
	Capability string // as "CAP_NET_BIND_SERVICE"
}

const (
	serviceSection = "[Service]"
	allowSetting   = "IPAddressAllow="
	boundSetting   = "CapabilityBoundingSet="
	ambientSetting = "AmbientCapabilities="
)

// settings returns the lines of an allowance, without the reason that is above each.
func (a Allowance) settings() (lines []string) {
	if len(a.Addresses) > 0 {
		lines = append(lines, allowSetting+strings.Join(a.Addresses, " "))
	}
	if a.Capability != "" {
		lines = append(lines, boundSetting+a.Capability, ambientSetting+a.Capability)
	}
	return lines
}

// isSetting reports whether a line can be one of an allowance.
func isSetting(line []byte) bool {
	for _, setting := range []string{allowSetting, boundSetting, ambientSetting} {
		if bytes.HasPrefix(line, []byte(setting)) {
			return true
		}
	}
	return false
}

// Add returns a file with the entry above everything else. It refuses one whose beginning would be
// taken for a part of the entry.
func (d DropIn) Add(name string, base []byte) ([]byte, error) {
	if d.confusing(base) {
		return nil, refuse("drop-in-shape", name, 1, "begin it with the name of a section", "does not begin with a section")
	}
	return append(d.block(), base...), nil
}

// block returns the lines of the entry.
func (d DropIn) block() []byte {
	lines := []string{FileMark, serviceSection}
	for _, a := range d.Allow {
		for _, setting := range a.settings() {
			lines = append(lines, "# "+a.Why, setting)
		}
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}

// confusing reports whether the entry would not end where base begins.
func (d DropIn) confusing(base []byte) bool {
	if len(base) == 0 {
		return false
	}
	_, rest, found := cutDropIn(append(d.block(), base...))
	return Marked(base) || !found || !bytes.Equal(rest, base) || len(base) > 0 && !startsSection(base)
}

// Settled reports whether a file has the entry.
func (d DropIn) Settled(_ string, now []byte) bool {
	block, _, found := cutDropIn(now)
	return found && bytes.Equal(block, d.block())
}

// RemoveDropIn removes the entry. Of a file to which another program has added settings below it, the
// heading of the section stays.
func RemoveDropIn(data []byte) Removed {
	_, rest, found := cutDropIn(data)
	if !found {
		return Removed{Rest: data}
	}
	bare := len(bytes.TrimSpace(rest)) == 0
	if !bare && !startsSection(rest) {
		rest = append([]byte(serviceSection+"\n"), rest...)
	}
	return Removed{Rest: rest, Found: true, Bare: bare}
}

// cutDropIn splits a file into the entry and what follows it.
func cutDropIn(data []byte) (block, rest []byte, found bool) {
	rest, found = bytes.CutPrefix(data, []byte(FileMark+"\n"))
	if !found {
		return nil, data, false
	}
	rest = bytes.TrimPrefix(rest, []byte(serviceSection+"\n"))
	for {
		why, after, whole := bytes.Cut(rest, []byte("\n"))
		setting, below, ended := bytes.Cut(after, []byte("\n"))
		if !whole || !ended || !bytes.HasPrefix(why, []byte("# ")) || !isSetting(setting) {
			return data[:len(data)-len(rest)], rest, true
		}
		rest = below
	}
}

// startsSection reports whether the first line of a unit file that is neither empty nor a comment is
// the heading of a section.
func startsSection(data []byte) bool {
	for line := range bytes.Lines(data) {
		text := bytes.TrimSpace(line)
		if len(text) > 0 && text[0] != '#' && text[0] != ';' {
			return text[0] == '['
		}
	}
	return false
}
