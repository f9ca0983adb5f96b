package cache

import (
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// open opens a file that exists, for reading, and finds it in the cache folder alone.
func (d *Dir) open(name string) (*os.File, error) { return d.openFile(name, os.O_RDONLY) }

// openFile opens a file that exists. The kernel does not leave the folder (openat2(2)), and needs one
// system call. [os.Root] needs two for each folder of the path, and five to find out what kind of
// file it is. It is used if the kernel is too old for that, or refuses.
func (d *Dir) openFile(name string, flag int) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flag) | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH} //nolint:gosec // a flag is not negative
	fd, err := unix.Openat2(int(d.folder.Fd()), name, &how)
	switch err {
	case nil:
		return os.NewFile(uintptr(fd), path.Join(d.root.Name(), name)), nil
	case unix.ENOENT:
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return d.root.OpenFile(name, flag, 0)
}
