package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// The attributes of chattr(1) that keep even root from writing (linux/fs.h).
const (
	immutable  = 0x10
	appendOnly = 0x20
)

// Writable returns a problem if f could not be written, so that a plan says so and not only its
// execution: a file system that is read-only, files and folders that are immutable, and owners to
// whom this process may not give files. It tries nothing, since a plan changes nothing.
func (h *Host) Writable(f File) error {
	if err := checkOwner(f); err != nil {
		return err
	}
	for at := f.Real; ; at = path.Dir(at) {
		folder, err := h.checkWritable(f.Path, at)
		if err != nil || folder {
			return err
		}
	}
}

// checkWritable looks at one file or folder. It reports whether it is a folder that exists.
func (h *Host) checkWritable(name, at string) (folder bool, err error) {
	node, err := h.walk(at, false)
	if err != nil {
		return false, err
	}
	defer node.close()
	folder = node.stat.Mode&unix.S_IFMT == unix.S_IFDIR
	d, err := node.open(unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return folder, Explain(name, "opening "+problem.QuotePath(at), err)
	}
	defer d.Close()
	if err := checkMount(int(d.Fd()), name); err != nil {
		return folder, err
	}
	return folder, checkFlags(int(d.Fd()), name, at)
}

// checkOwner is for the watching service, whose root has no capability: the file that replaces one
// of another user would be root's.
func checkOwner(f File) error {
	us := unix.Geteuid()
	if !f.Exists() || us != 0 || f.Attrs.UID == 0 && f.Attrs.GID == 0 || capable(unix.CAP_CHOWN) {
		return nil
	}
	return &problem.Problem{Code: "permission-denied", Path: f.Path,
		Text: fmt.Sprintf("belongs to user %d and group %d, to whom root without capabilities, as which the watching service runs, may not give a file", f.Attrs.UID, f.Attrs.GID),
		Hint: "run sidemirror apply, or chown 0:0 it"}
}

// capable reports whether this process has a capability in effect, and true if it cannot tell.
func capable(number int) bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&head, &data[0]) != nil || data[number/32].Effective&(1<<(number%32)) != 0
}

func checkMount(fd int, name string) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Flags&unix.ST_RDONLY == 0 {
		return nil // if the kernel does not say, the write shows it
	}
	return &problem.Problem{Code: "file-system-read-only", Path: name, Text: "on a read-only file system", Hint: hintReadOnly}
}

func checkFlags(fd int, name, at string) error {
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&(immutable|appendOnly) == 0 {
		return nil // many file systems have no such attributes
	}
	if at == name {
		at = "it"
	}
	return &problem.Problem{Code: "file-immutable", Path: name, Text: "cannot be replaced, because " + problem.QuotePath(at) + " is immutable", Hint: "see lsattr, and chattr -i -a"}
}
