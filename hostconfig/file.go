package hostconfig

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tempName is where the next content of base is written, in the same folder. The
// name is fixed, so that what a killed run left there is found and removed by
// the next one.
func tempName(base string) string { return "." + base + ".sidemirror" }

// hash names some content.
func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// write replaces the file at real (resolved) by data, durably: after a crash
// there is the old file or the new one, whole. before is what must be there
// now (nil: nothing); anything else means that somebody was faster, and is left.
//
// The file is synced before the rename and the folder after it, because a rename
// may otherwise reach the disk before the data does (ext4 data=ordered, XFS).
func (t *tree) write(real string, before, data []byte, at attrs) error {
	dir, err := t.root.Open(local(path.Dir(real)))
	if err != nil {
		return explain(real, "opening the folder of", err)
	}
	defer dir.Close()
	base := path.Base(real)
	if _, err := unchanged(dir, base, real, before); err != nil {
		return err
	}
	if err := t.writeTemp(dir, base, real, data, at); err != nil {
		_ = unix.Unlinkat(int(dir.Fd()), tempName(base), 0)
		return err
	}
	if err := t.swap(dir, base, real, before, data, at); err != nil {
		_ = unix.Unlinkat(int(dir.Fd()), tempName(base), 0)
		return err
	}
	if err := t.sync(dir, real); err != nil {
		return err
	}
	now, _, err := readAt(dir, base, real)
	if err == nil && !bytes.Equal(now, data) {
		return &refusal{path: real, reason: "is not what was just written: another program writes it too", mend: "stop that program, or run again"}
	}
	return err
}

// unchanged answers with the time of a file that still holds before.
func unchanged(dir *os.File, base, name string, before []byte) (time.Time, error) {
	now, at, err := readAt(dir, base, name)
	if err == nil && !same(now, before) {
		err = &refusal{path: name, reason: "was changed by somebody else since it was read", mend: "run again"}
	}
	return at.Mtime, err
}

func (t *tree) writeTemp(dir *os.File, base, real string, data []byte, at attrs) error {
	temp := tempName(base)
	if err := t.about("create", real); err != nil {
		return explain(real, "writing beside", err)
	}
	if err := unix.Unlinkat(int(dir.Fd()), temp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return explain(real, "writing beside", err)
	}
	fd, err := unix.Openat(int(dir.Fd()), temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return explain(real, "writing beside", err)
	}
	f := os.NewFile(uintptr(fd), temp)
	defer f.Close()
	if err := t.about("write", real); err != nil {
		return explain(real, "writing beside", err)
	}
	if _, err := f.Write(data); err != nil {
		return explain(real, "writing beside", err)
	}
	if err := t.about("attributes", real); err != nil {
		return explain(real, "giving its attributes to the new", err)
	}
	if err := errors.Join(setAttrs(f, at), setTime(dir, temp, at.Mtime)); err != nil {
		return explain(real, "giving its attributes to the new", err)
	}
	if err := t.about("sync", real); err != nil {
		return explain(real, "syncing", err)
	}
	if err := f.Sync(); err != nil {
		return explain(real, "syncing", err)
	}
	return nil
}

// setAttrs gives f owner, mode and extended attributes.
// The owner comes first: chown takes set-id bits away.
func setAttrs(f *os.File, at attrs) error {
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

// setTime sets the time of the last change, where one is wanted.
func setTime(dir *os.File, base string, mtime time.Time) error {
	if mtime.IsZero() {
		return nil
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(mtime.UnixNano())}
	return unix.UtimesNanoAt(int(dir.Fd()), base, times, unix.AT_SYMLINK_NOFOLLOW)
}

func owner(info fs.FileInfo) (uid, gid int) {
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid)
}

// swap puts the temporary file in the file's place. A file that is a mount point
// of its own (a bind mount into a container) cannot be renamed over: it is
// written in place, and put back at once if that fails.
func (t *tree) swap(dir *os.File, base, real string, before, data []byte, at attrs) error {
	was, err := unchanged(dir, base, real, before)
	if err != nil {
		return err
	}
	fd := int(dir.Fd())
	err = t.about("rename", real)
	if err == nil && before == nil {
		err = unix.Renameat2(fd, tempName(base), fd, base, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
			err = unix.Renameat(fd, tempName(base), fd, base)
		}
	} else if err == nil {
		err = unix.Renameat(fd, tempName(base), fd, base)
	}
	if !errors.Is(err, unix.EBUSY) {
		if err != nil {
			return explain(real, "replacing", err)
		}
		return nil
	}
	if err := unix.Unlinkat(fd, tempName(base), 0); err != nil {
		return explain(real, "writing beside", err)
	}
	done := func() error { return nil }
	if t.inPlace != nil {
		if done, err = t.inPlace(intent{real, was, before, data}); err != nil {
			return err
		}
	}
	if err := t.writeInPlace(dir, base, real, data, at.Mtime); err != nil {
		// Already failing: one more failure here leaves a torn file, which the next
		// run mends (see journal.mend).
		if t.writeInPlace(dir, base, real, before, was) == nil {
			_ = done()
		}
		return err
	}
	return done()
}

// writeInPlace overwrites from the start and cuts off what is left over, in that
// order: whatever instant it is stopped at, the file is a beginning of data
// followed by what was there.
func (t *tree) writeInPlace(dir *os.File, base, real string, data []byte, mtime time.Time) error {
	fd, err := unix.Openat(int(dir.Fd()), base, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return explain(real, "opening for writing in place", err)
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	half := len(data) / 2
	for _, part := range []struct {
		op       string
		from, to int
	}{{"overwrite", 0, half}, {"overwrite more", half, len(data)}} {
		if err := t.about(part.op, real); err != nil {
			return explain(real, "writing in place", err)
		}
		if _, err := f.WriteAt(data[part.from:part.to], int64(part.from)); err != nil {
			return explain(real, "writing in place", err)
		}
	}
	if err := t.about("truncate", real); err != nil {
		return explain(real, "writing in place", err)
	}
	if err := f.Truncate(int64(len(data))); err != nil {
		return explain(real, "writing in place", err)
	}
	if err := setTime(dir, base, mtime); err != nil {
		return explain(real, "setting the time of", err)
	}
	if err := f.Sync(); err != nil {
		return explain(real, "syncing", err)
	}
	return nil
}

// torn reports whether now is what writeInPlace leaves behind when it is killed
// while it turns before into after.
func torn(now, before, after []byte) bool {
	k := 0
	for k < len(now) && k < len(after) && now[k] == after[k] {
		k++
	}
	return len(now) == max(len(before), k) && bytes.Equal(now[k:], before[min(k, len(before)):])
}

func (t *tree) sync(dir *os.File, name string) error {
	if err := t.about("sync folder", name); err != nil {
		return explain(path.Dir(name), "syncing", err)
	}
	if err := dir.Sync(); err != nil {
		return explain(path.Dir(name), "syncing", err)
	}
	return nil
}

// remove deletes the file at real if it still holds before.
func (t *tree) remove(real string, before []byte) error {
	dir, err := t.root.Open(local(path.Dir(real)))
	if err != nil {
		return explain(real, "opening the folder of", err)
	}
	defer dir.Close()
	if _, err := unchanged(dir, path.Base(real), real, before); err != nil {
		return err
	}
	if err := t.about("remove", real); err != nil {
		return explain(real, "removing", err)
	}
	if err := unix.Unlinkat(int(dir.Fd()), path.Base(real), 0); err != nil {
		return explain(real, "removing", err)
	}
	return t.sync(dir, real)
}

// removeTemp removes what a killed run left beside real.
func (t *tree) removeTemp(real string) error {
	name := path.Join(path.Dir(real), tempName(path.Base(real)))
	info, err := t.root.Lstat(local(name))
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	if err := t.root.Remove(local(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return explain(name, "removing", err)
	}
	return nil
}

// missing lists the folders above real that are not there, outermost first.
func (t *tree) missing(real string) []string {
	var list []string
	for dir := path.Dir(real); dir != "/"; dir = path.Dir(dir) {
		if _, err := t.root.Lstat(local(dir)); err == nil {
			break
		}
		list = append([]string{dir}, list...)
	}
	return list
}

// makeFolder makes one folder, durably. One that is there already is no error.
func (t *tree) makeFolder(name string, mode fs.FileMode) error {
	if err := t.about("mkdir", name); err != nil {
		return explain(name, "making the folder", err)
	}
	err := t.root.Mkdir(local(name), mode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return explain(name, "making the folder", err)
	}
	// The umask of whoever runs us must not keep the engine out.
	if err := t.root.Chmod(local(name), mode); err != nil {
		return explain(name, "making the folder", err)
	}
	return t.syncFolder(path.Dir(name))
}

// removeFolder removes one folder if it is empty; others keep theirs.
func (t *tree) removeFolder(name string) error {
	if err := t.about("rmdir", name); err != nil {
		return explain(name, "removing the folder", err)
	}
	info, err := t.root.Lstat(local(name))
	if err != nil || !info.IsDir() {
		return nil
	}
	err = t.root.Remove(local(name))
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return explain(name, "removing the folder", err)
	}
	return t.syncFolder(path.Dir(name))
}

func (t *tree) syncFolder(name string) error {
	d, err := t.root.Open(local(name))
	if err != nil {
		return explain(name, "syncing", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return explain(name, "syncing", err)
	}
	return nil
}
