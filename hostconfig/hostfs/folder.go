package hostfs

import (
	"errors"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/durable"
)

// Missing lists the folders above real that do not exist, outermost first.
func (h *Host) Missing(real string) []string {
	var list []string
	for dir := path.Dir(real); dir != "/"; dir = path.Dir(dir) {
		if _, err := h.root.Lstat(local(dir)); err == nil {
			break
		}
		list = append([]string{dir}, list...)
	}
	return list
}

// MakeFolder makes one folder, durably. One that exists already is no error.
func (h *Host) MakeFolder(name string, mode fs.FileMode) error {
	if err := h.step("mkdir", name); err != nil {
		return Explain(name, "creating the folder", err)
	}
	err := h.root.Mkdir(local(name), mode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return Explain(name, "creating the folder", err)
	}
	// The caller's umask must not keep the engine out.
	if err := h.root.Chmod(local(name), mode); err != nil {
		return Explain(name, "creating the folder", err)
	}
	return h.SyncFolder(path.Dir(name))
}

// RemoveFolder removes one folder if it is empty. One that is not is no error.
func (h *Host) RemoveFolder(name string) error {
	if err := h.step("rmdir", name); err != nil {
		return Explain(name, "removing the folder", err)
	}
	info, err := h.root.Lstat(local(name))
	if err != nil || !info.IsDir() {
		return nil
	}
	err = h.root.Remove(local(name))
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return Explain(name, "removing the folder", err)
	}
	return h.SyncFolder(path.Dir(name))
}

// RenameFolder renames a folder, durably.
func (h *Host) RenameFolder(from, to string) error {
	err := h.step("rename folder", to)
	if err == nil {
		err = h.root.Rename(local(from), local(to))
	}
	if err != nil {
		return Explain(to, "renaming the folder", err)
	}
	return h.SyncFolder(path.Dir(to))
}

// RemoveAll removes name and all that is in it. A missing one is no error.
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

// SyncFolder makes the changes in a folder reach the disk.
func (h *Host) SyncFolder(name string) error {
	d, err := h.root.Open(local(name))
	if err != nil {
		return Explain(name, "syncing it", err)
	}
	defer d.Close()
	if err := durable.Sync(d); err != nil {
		return Explain(name, "syncing it", err)
	}
	return nil
}
