package boot

import (
	"fmt"
	"sort"
	"strings"
	"time"
)

// A tree is the files of a machine: a path's kind, mode, owner, link target, and
// what its content is known by.
type tree map[string]string

// disk reads everything that is on the root's file system; content is known by size
// and time, which is good enough to find what was left behind.
func (m *machine) disk() tree {
	m.t.Helper()
	return m.find("/", `\( -type f -printf '%p\t%y %m %U:%G %s %T@\n' -o -printf '%p\t%y %m %U:%G %l\n' \)`)
}

// find prints what is below a folder as find's action has it: path, tab, the rest.
func (m *machine) find(dir, action string) tree {
	m.t.Helper()
	found := tree{}
	for line := range strings.Lines(m.run("find " + dir + " -xdev " + action)) {
		path, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		found[path] = rest
	}
	return found
}

// tree reads what is below a folder, with checksums.
func (m *machine) tree(dir string) tree {
	m.t.Helper()
	found := m.find(dir, `-printf '%p\t%y %m %U:%G %l\n'`)
	for line := range strings.Lines(m.run("find " + dir + " -xdev -type f -exec sha256sum {} +")) {
		sum, path, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		found[path] += sum
	}
	return found
}

// differences lists the paths that are not as before, each with what it was and
// is; none of the files and folders that are excepted: paths, or with a star what
// they begin with.
func (after tree) differences(before tree, except ...string) []string {
	var found []string
	note := func(path, was, is string) {
		for _, e := range except {
			if begin, star := strings.CutSuffix(e, "*"); star && strings.HasPrefix(path, begin) || path == e || strings.HasPrefix(path, e+"/") {
				return
			}
		}
		if was != is {
			found = append(found, fmt.Sprintf("%s: was %q, is %q", path, was, is))
		}
	}
	for path, was := range before {
		note(path, was, after[path])
	}
	for path, is := range after {
		if _, known := before[path]; !known {
			note(path, "", is)
		}
	}
	sort.Strings(found)
	return found
}

// failed lists the units that have failed.
func (m *machine) failed() []string {
	m.t.Helper()
	var units []string
	for line := range strings.Lines(m.run("systemctl list-units --failed --no-legend --plain")) {
		unit, _, _ := strings.Cut(line, " ")
		units = append(units, unit)
	}
	return units
}

// property reads a property of a unit.
func (m *machine) property(unit, name string) string {
	m.t.Helper()
	return strings.TrimSpace(m.run("systemctl show --value --property=" + name + " " + unit))
}

// active reports whether a unit is.
func (m *machine) active(unit string) error {
	if state := m.property(unit, "ActiveState"); state != "active" {
		return fmt.Errorf("%s is %s", unit, state)
	}
	return nil
}

// bootTime is how long systemd took from its start until all was up.
func (m *machine) bootTime() time.Duration {
	m.t.Helper()
	return m.between("UserspaceTimestampMonotonic", "FinishTimestampMonotonic", "")
}

// startTime is how long a unit took to start.
func (m *machine) startTime(unit string) time.Duration {
	m.t.Helper()
	return m.between("InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic", unit)
}

// between is the time between two properties of a unit, or of systemd itself.
func (m *machine) between(first, second, unit string) time.Duration {
	m.t.Helper()
	var from, to int64
	out := m.run("systemctl show --property=" + first + " --property=" + second + " " + unit)
	for line := range strings.Lines(out) {
		for name, value := range map[string]*int64{first: &from, second: &to} {
			_, _ = fmt.Sscanf(line, name+"=%d", value) // 0 where it is not that line
		}
	}
	if from == 0 || to < from {
		m.t.Fatalf("systemd says of %s: %s", unit, out)
	}
	return time.Duration(to-from) * time.Microsecond
}
