package hostfs

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/durable"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// Write replaces the file at real (resolved) by data, durably: after a crash there is the old file
// or the new one, whole. before is what must be there now (nil: no file); if the file is something
// else, another program was faster, and its file is left alone.
func (h *Host) Write(real string, before, data []byte, at Attrs) error {
	dir, err := h.folder(path.Dir(real))
	if err != nil {
		return err
	}
	defer dir.Close()
	base := path.Base(real)
	var was time.Time
	check := func() error {
		was, err = unchanged(dir, base, real, before)
		return err
	}
	if err := check(); err != nil {
		return err
	}
	err = durable.Replace(dir, base, data, durable.Options{
		New:     before == nil,
		Prepare: func(f *os.File) error { return errors.Join(setAttrs(f, at), setTime(f, at.Mtime)) },
		Check:   check,
		Step:    func(op string) error { return h.step(op, real) },
	})
	if errors.Is(err, unix.EBUSY) {
		err = h.replaceInPlace(dir, InPlace{real, was, before, data}, at.Mtime)
	}
	if err != nil {
		return Explain(real, "replacing it", err)
	}
	now, _, err := readAt(dir, base, real)
	if err == nil && !Same(now, data) {
		return &problem.Problem{Code: "file-changing", Path: real, Text: "not what was just written: another program writes it too", Hint: "stop that program, or run the command again"}
	}
	return err
}

// unchanged returns the time of a file that still holds before.
func unchanged(dir *os.File, base, name string, before []byte) (time.Time, error) {
	now, at, err := readAt(dir, base, name)
	if err == nil && !Same(now, before) {
		err = &problem.Problem{Code: "file-changed", Path: name, Text: "another program changed it since it was read", Hint: "run the command again"}
	}
	return at.Mtime, err
}

// setAttrs gives f owner, mode and extended attributes.
// The owner comes first: chown takes set-id bits away.
func setAttrs(f *os.File, at Attrs) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if uid, gid := owner(info); uid != at.UID || gid != at.GID {
		if err := f.Chown(at.UID, at.GID); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(int(f.Fd()), at.Mode); err != nil {
		return err
	}
	for name, value := range at.Xattrs {
		if err := unix.Fsetxattr(int(f.Fd()), name, value, 0); err != nil {
			return err
		}
	}
	return nil
}

// setTime sets the time of the last change, if one is wanted. It is futimens(3), which
// x/sys/unix offers by way of /proc only, and AT_EMPTY_PATH needs Linux 5.8.
func setTime(f *os.File, mtime time.Time) error {
	if mtime.IsZero() {
		return nil
	}
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(mtime.UnixNano())}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, f.Fd(), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0)
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	return nil
}

func owner(info fs.FileInfo) (uid, gid int) {
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid)
}

// Remove deletes the file at real (resolved) if it still holds before.
func (h *Host) Remove(real string, before []byte) error {
	dir, err := h.folder(path.Dir(real))
	if err != nil {
		return err
	}
	defer dir.Close()
	if _, err := unchanged(dir, path.Base(real), real, before); err != nil {
		return err
	}
	step := func(op string) error { return h.step(op, real) }
	if err := durable.Remove(dir, path.Base(real), durable.Options{Step: step}); err != nil {
		return Explain(real, "removing it", err)
	}
	return nil
}

// RemoveTemp removes what a killed run left next to real.
func (h *Host) RemoveTemp(real string) error {
	dir, err := h.folder(path.Dir(real))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer dir.Close()
	temp := durable.Temp(path.Base(real))
	node, stat, err := openNode(dir, temp)
	if err != nil {
		return nil
	}
	_ = node.Close()
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	if err := unix.Unlinkat(int(dir.Fd()), temp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return Explain(path.Join(path.Dir(real), temp), "removing it", err)
	}
	return nil
}
