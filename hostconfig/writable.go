package hostconfig

import (
	"fmt"
	"path"

	"golang.org/x/sys/unix"
)

// The attributes of chattr(1) that keep even root from writing (linux/fs.h).
const (
	immutable  = 0x10
	appendOnly = 0x20
)

// writable refuses what could not be written, so that a plan says so and not only
// its execution: a file system that is read-only, files and folders that are immutable, and
// owners to whom we may not give files. It does not try, since a plan changes nothing.
func (t *tree) writable(now file) error {
	name := now.path
	if err := checkOwner(now); err != nil {
		return err
	}
	for at := now.real; ; at = path.Dir(at) {
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

// checkOwner is for the watching service, whose root has no capability: what replaces a file
// of another's would be root's.
func checkOwner(now file) error {
	us := unix.Geteuid()
	if !now.exists() || us != 0 || now.attrs.UID == 0 && now.attrs.GID == 0 || capable(unix.CAP_CHOWN) {
		return nil
	}
	return &refusal{path: now.path,
		reason: fmt.Sprintf("belongs to user %d and group %d, to whom root without capabilities, as which the watching service runs, may not give a file", now.attrs.UID, now.attrs.GID),
		mend:   "run sidemirror apply, or chown 0:0 it"}
}

// capable reports whether we have a capability in effect; where that cannot be told, that
// we have.
func capable(number int) bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&head, &data[0]) != nil || data[number/32].Effective&(1<<(number%32)) != 0
}

func checkMount(fd int, name string) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Flags&unix.ST_RDONLY == 0 {
		return nil // what cannot be told shows when it is written
	}
	return &refusal{path: name, reason: "is on a read-only file system", mend: mendReadOnly}
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
