// Package version compares the versions of container engines.
package version

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
)

// Version is what decides how an engine behaves. The zero value means that it is not known.
type Version struct{ Major, Minor int }

var text = lazyregexp.New(`(?:^|[ v:])(\d{1,4})\.(\d{1,4})\.(\d{1,4})`)

// Find returns the first version in what a program or a package database says: "28.5.2" of "Docker
// version 28.5.2, build …", "5:28.5.2-1~debian.12" or "… v28.5.2 …". It is empty if there is none.
func Find(said string) string {
	m := text().FindStringSubmatch(said)
	if m == nil {
		return ""
	}
	return strings.Join(m[1:], ".")
}

// Parse reads the first version in a text.
func Parse(said string) Version {
	parts := strings.Split(Find(said), ".")
	if len(parts) < 2 {
		return Version{}
	}
	// Find lets only digits through.
	major, _ := strconv.Atoi(parts[0])
	minor, _ := strconv.Atoi(parts[1])
	return Version{major, minor}
}

// Known reports whether the version is known.
func (v Version) Known() bool { return v != Version{} }

// AtLeast reports whether v is a version or a later one. It is false if v is not known.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

func (v Version) String() string {
	if !v.Known() {
		return ""
	}
	return fmt.Sprintf("%d.%d", v.Major, v.Minor)
}

// Package returns the version of the first installed one of some packages, from dpkg's status
// file, deb-control(5).
func Package(status []byte, packages ...string) string {
	for stanza := range bytes.SplitSeq(status, []byte("\n\n")) {
		fields := make(map[string]string)
		for line := range strings.SplitSeq(string(stanza), "\n") {
			if key, value, ok := strings.Cut(line, ": "); ok {
				fields[key] = value
			}
		}
		if slices.Contains(packages, fields["Package"]) && strings.HasSuffix(fields["Status"], " installed") {
			return Find(fields["Version"])
		}
	}
	return ""
}
