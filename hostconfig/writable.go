package hostconfig

import (
	"path"

	"golang.org/x/sys/unix"
)

// The attributes of chattr(1) that keep even root from writing (linux/fs.h).
const (
	immutable  = 0x10
	appendOnly = 0x20
)

// writable refuses what could not be written, so that a plan says so and not only
// its execution: a file system that is read-only, and files and folders that are immutable. It
// does not try, since a plan changes nothing.
func (t *tree) writable(name, real string) error {
	for at := real; ; at = path.Dir(at) {
		f, err := t.root.Open(local(at))
		if err != nil {
			if at == "/" {
				return explain(name, "opening the folder of", err)
			}
			continue
		}
		if err = checkMount(int(f.Fd()), name); err == nil {
			err = checkFlags(int(f.Fd()), name, at)
		}
		_ = f.Close()
		if info, found := t.stat(at); err != nil || found && info.IsDir() {
			return err
		}
	}
}

func checkMount(fd int, name string) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Flags&unix.ST_RDONLY == 0 {
		return nil // what cannot be told shows when it is written
	}
	return &refusal{path: name, reason: "is on a read-only file system", mend: "make it writable, or write this file into the host's image"}
}

func checkFlags(fd int, name, at string) error {
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&(immutable|appendOnly) == 0 {
		return nil // many file systems have no such attributes
	}
	if at == name {
		at = "it"
	}
	return &refusal{path: name, reason: "cannot be replaced, because " + quotePath(at) + " is immutable", mend: "see lsattr, and chattr -i -a"}
}
