package hostfs

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// Trusted returns a problem if another user than root could have put name there, or could change it
// or any folder or link on the way to it. Use it before a path that comes from an argument, from a
// configuration or from another file is read, written or executed. A missing file is no problem.
//
// On the running host only user 0 counts as root. In another tree, which may be an image that a
// user builds, the tree's owner and the user of this process count as root too.
//
// Write permission of the group or of others makes a file unsafe, also in a folder with the sticky
// bit: any user may create files in /tmp. With a POSIX ACL the permission bits of the group are the
// ACL's mask, so that an entry that allows writing shows there too.
func (h *Host) Trusted(name string) error {
	h.asked[name] = true
	f, err := h.walk(name, true)
	if err != nil {
		return err
	}
	defer f.close()
	if f.unsafe != nil {
		return f.unsafe
	}
	return nil
}

// ReadTrusted is [Host.Read] for a file that only root may have chosen and written; see
// [Host.Trusted].
func (h *Host) ReadTrusted(name string) (File, error) {
	f, err := h.Read(name)
	if err == nil && f.Unsafe != nil {
		return File{}, f.Unsafe
	}
	return f, err
}

// unsafePart returns why part, which is on the way to name, is not safe; nil if it is.
func (h *Host) unsafePart(name, part string, stat *unix.Stat_t) *problem.Problem {
	p := &problem.Problem{Code: "path-not-safe", Path: name}
	shown := problem.QuotePath(part)
	writable := stat.Mode & 0o022
	if !h.running && slices.Contains(h.groups, stat.Gid) {
		writable &^= 0o020
	}
	switch {
	case !slices.Contains(h.owners, stat.Uid):
		p.Text = fmt.Sprintf("%s belongs to user %d instead of root", shown, stat.Uid)
		p.Hint = "if it is meant to be there, run chown root:root " + shown
	case stat.Mode&unix.S_IFMT == unix.S_IFLNK: // its permission bits mean nothing
		return nil
	case stat.Mode&unix.S_ISVTX != 0 && writable&0o002 != 0:
		p.Text = fmt.Sprintf("every user may create files in %s (mode %04o)", shown, stat.Mode&0o7777)
		p.Hint = "move it to a folder that only root can write to"
	case writable != 0:
		p.Text = fmt.Sprintf("other users than root may write to %s (mode %04o)", shown, stat.Mode&0o7777)
		p.Hint = "run chmod go-w " + shown
	default:
		return nil
	}
	return p
}
