package hostconfig

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// refusal is a file that we leave as it is, why, and what a person can do about it.
type refusal struct {
	path         string
	line         int // 0 where no line is to blame
	reason, mend string
}

func (r *refusal) Error() string {
	var b strings.Builder
	b.WriteString(quotePath(r.path))
	if r.line > 0 {
		fmt.Fprintf(&b, ":%d", r.line)
	}
	b.WriteString(": " + r.reason)
	if r.mend != "" {
		b.WriteString("; " + r.mend)
	}
	return b.String()
}

// quotePath keeps a name with a newline in it from passing for two lines of ours.
func quotePath(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Sprintf("%q", name)
	}
	return name
}

const mendReadOnly = "make it writable, or write this file into the host's image; for sidemirror-hosts.service it may be so alone: see ReadWritePaths there"

// explain adds what a bare errno does not tell a person.
func explain(name, doing string, err error) error {
	mend := ""
	switch {
	case errors.Is(err, unix.EROFS):
		mend = "the file system is read-only: " + mendReadOnly
	case errors.Is(err, unix.EPERM):
		mend = "the file or its folder may be immutable: see lsattr, and chattr -i"
	case errors.Is(err, fs.ErrPermission) && unix.Geteuid() == 0:
		mend = "it is not for root without capabilities, as which the watching service runs: run sidemirror apply, or chown 0:0 it"
	case errors.Is(err, fs.ErrPermission):
		mend = "run as root"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		mend = "make room on that disk"
	}
	if mend != "" {
		return fmt.Errorf("%s %s: %w; %s", doing, quotePath(name), err, mend)
	}
	return fmt.Errorf("%s %s: %w", doing, quotePath(name), err)
}

// lineAt is the number of the line that offset lies in.
func lineAt(b []byte, offset int) int {
	return 1 + bytes.Count(b[:min(max(offset, 0), len(b))], []byte("\n"))
}

func sortEntries(list []fs.DirEntry) {
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
}
