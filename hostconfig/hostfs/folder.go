package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/durable"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// folder opens a folder by its resolved name.
func (h *Host) folder(real string) (*os.File, error) {
	f, err := h.walk(real, false)
	if err != nil {
		return nil, err
	}
	defer f.close()
	dir, err := f.open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return nil, Explain(real, "opening the folder", err)
	}
	return dir, nil
}

// Missing lists the folders above real (resolved) that do not exist, outermost first.
func (h *Host) Missing(real string) []string {
	var list []string
	for dir := path.Dir(real); dir != "/"; dir = path.Dir(dir) {
		f, err := h.walk(dir, false)
		if err != nil {
			break
		}
		f.close()
		if f.node != nil {
			break
		}
		list = append([]string{dir}, list...)
	}
	return list
}

// MakeFolder makes one folder (resolved), durably. One that exists already is no error.
//
// A umask that would keep the engine out is corrected by the folder's descriptor, and only if no
// other user can exchange that folder for another one.
func (h *Host) MakeFolder(name string, mode fs.FileMode) error {
	if err := h.step("mkdir", name); err != nil {
		return Explain(name, "creating the folder", err)
	}
	above, err := h.walk(path.Dir(name), false)
	if err != nil {
		return err
	}
	defer above.close()
	dir, err := above.open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return Explain(path.Dir(name), "opening the folder", err)
	}
	defer dir.Close()
	err = unix.Mkdirat(int(dir.Fd()), path.Base(name), uint32(mode.Perm()))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = setMode(dir, path.Base(name), mode, above.unsafe == nil)
	}
	if err == nil {
		err = durable.Sync(dir)
	}
	if err != nil {
		return Explain(name, "creating the folder", err)
	}
	return nil
}

// setMode gives the folder that was just made its mode.
func setMode(dir *os.File, base string, mode fs.FileMode, safe bool) error {
	fd, err := unix.Openat(int(dir.Fd()), base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	switch {
	case stat.Mode&0o777 == uint32(mode.Perm()):
		return nil
	case !safe || int(stat.Uid) != unix.Geteuid():
		return &problem.Problem{Code: "path-not-safe", Path: path.Join(dir.Name(), base),
			Text: fmt.Sprintf("the umask gave the new folder mode %04o, and other users can exchange it, so that its mode is not changed", stat.Mode&0o777),
			Hint: "run the command again after umask 022"}
	}
	return unix.Fchmod(fd, uint32(mode.Perm()))
}

// RemoveFolder removes one folder (resolved) if it is empty. One that is not is no error.
func (h *Host) RemoveFolder(name string) error {
	if err := h.step("rmdir", name); err != nil {
		return Explain(name, "removing the folder", err)
	}
	dir, err := h.folder(path.Dir(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer dir.Close()
	err = unix.Unlinkat(int(dir.Fd()), path.Base(name), unix.AT_REMOVEDIR)
	switch {
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return nil
	case err == nil:
		err = durable.Sync(dir)
	}
	if err != nil {
		return Explain(name, "removing the folder", err)
	}
	return nil
}

// RenameFolder renames a folder within the folder that it is in, durably.
func (h *Host) RenameFolder(from, to string) error {
	err := h.step("rename folder", to)
	if err != nil {
		return Explain(to, "renaming the folder", err)
	}
	dir, err := h.folder(path.Dir(to))
	if err != nil {
		return err
	}
	defer dir.Close()
	err = unix.Renameat(int(dir.Fd()), path.Base(from), int(dir.Fd()), path.Base(to))
	if err == nil {
		err = durable.Sync(dir)
	}
	if err != nil {
		return Explain(to, "renaming the folder", err)
	}
	return nil
}

// RemoveAll removes name (resolved) and all that is in it. A missing one is no error.
func (h *Host) RemoveAll(name string) error {
	err := h.step("remove", name)
	if err == nil {
		err = h.root.RemoveAll(local(name))
	}
	if err != nil {
		return Explain(name, "removing it", err)
	}
	return nil
}

// SyncFolder makes the changes in a folder (resolved) reach the disk.
func (h *Host) SyncFolder(name string) error {
	dir, err := h.folder(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := durable.Sync(dir); err != nil {
		return Explain(name, "syncing it", err)
	}
	return nil
}
