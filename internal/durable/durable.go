// Package durable replaces files so that after a crash or a power failure there is the old file
// or the new one, whole.
//
// Files are named relative to a descriptor of their folder. If another program exchanges the
// folder for a link meanwhile, the file still goes where the caller looked.
package durable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Temp returns the name under which the next content of the file name is written, in the same
// folder. It is fixed, so that the next run finds and removes what a killed one left.
func Temp(name string) string { return "." + name + ".sidemirror" }

// Options change how [Replace] works. [Remove] takes Step alone of them.
type Options struct {
	// New says that there must not be a file of that name yet. If there is one, the error is
	// [fs.ErrExist].
	New bool

	// Prepare, if not nil, gives the new file its attributes before it is synced. It has mode
	// 0600 before.
	Prepare func(f *os.File) error

	// Check, if not nil, is called right before the rename, and stops it by an error.
	Check func() error

	// Step, if not nil, is called before each change, and stops it by an error. Tests use it
	// to fail or to kill the process at each step.
	Step func(op string) error
}

func (o Options) step(op string) error {
	if o.Step == nil {
		return nil
	}
	return o.Step(op)
}

// Replace writes data to a new file and gives it the name name in folder. If it fails before
// the rename, the old file is unchanged and the new one is removed.
func Replace(folder *os.File, name string, data []byte, o Options) error {
	err := o.write(folder, name, data)
	if err == nil && o.Check != nil {
		err = o.Check()
	}
	if err == nil {
		err = o.rename(folder, name)
	}
	if err != nil {
		_ = unix.Unlinkat(int(folder.Fd()), Temp(name), 0)
		return err
	}
	return o.sync(folder)
}

func (o Options) sync(folder *os.File) error {
	if err := o.step("sync folder"); err != nil {
		return fmt.Errorf("syncing the folder: %w", err)
	}
	return Sync(folder)
}

// write makes the temporary file. It is synced before the rename, because the rename may
// otherwise reach the disk before the data does (ext4 data=ordered, XFS).
func (o Options) write(folder *os.File, name string, data []byte) error {
	temp := Temp(name)
	if err := o.step("create"); err != nil {
		return fmt.Errorf("creating a new file: %w", err)
	}
	if err := unix.Unlinkat(int(folder.Fd()), temp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing the new file of an earlier run: %w", err)
	}
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(int(folder.Fd()), temp, flags, 0o600)
	if err != nil {
		return fmt.Errorf("creating a new file: %w", err)
	}
	f := os.NewFile(uintptr(fd), temp)
	defer f.Close()
	if err := o.step("write"); err != nil {
		return fmt.Errorf("writing the new file: %w", err)
	}
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("writing the new file: %w", cause(err))
	}
	if err := o.step("attributes"); err != nil {
		return fmt.Errorf("setting the new file's attributes: %w", err)
	}
	if o.Prepare != nil {
		if err := o.Prepare(f); err != nil {
			return fmt.Errorf("setting the new file's attributes: %w", cause(err))
		}
	}
	if err := o.step("sync"); err != nil {
		return fmt.Errorf("syncing the new file: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("syncing the new file: %w", cause(err))
	}
	return nil
}

func (o Options) rename(folder *os.File, name string) error {
	fd := int(folder.Fd())
	err := o.step("rename")
	if err == nil && o.New {
		err = unix.Renameat2(fd, Temp(name), fd, name, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
			// A file system that cannot promise it (some of FUSE). Check has just looked.
			err = unix.Renameat(fd, Temp(name), fd, name)
		}
	} else if err == nil {
		err = unix.Renameat(fd, Temp(name), fd, name)
	}
	if err != nil {
		return fmt.Errorf("renaming the new file: %w", err)
	}
	return nil
}

// Rename gives the file f, which is temp in the folder from, the name name in the folder to. It
// is for content too large to be in memory: the caller has written it, and Rename syncs it.
func Rename(f, from *os.File, temp string, to *os.File, name string) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("syncing the new file: %w", cause(err))
	}
	if err := unix.Renameat(int(from.Fd()), temp, int(to.Fd()), name); err != nil {
		return fmt.Errorf("renaming the new file: %w", err)
	}
	return Sync(to)
}

// Remove removes the file name from folder. A missing file is an error.
func Remove(folder *os.File, name string, o Options) error {
	err := o.step("remove")
	if err == nil {
		err = unix.Unlinkat(int(folder.Fd()), name, 0)
	}
	if err != nil {
		return fmt.Errorf("removing the file: %w", err)
	}
	return o.sync(folder)
}

// Sync makes what was created, renamed or removed in folder reach the disk. A rename that is not
// followed by it may be undone by a power failure.
func Sync(folder *os.File) error {
	if err := folder.Sync(); err != nil {
		return fmt.Errorf("syncing the folder: %w", cause(err))
	}
	return nil
}

const (
	// lockWithin bounds the wait for another process, which holds a lock for milliseconds;
	// lockRetry is how often it is tried.
	lockWithin = 10 * time.Second
	lockRetry  = 20 * time.Millisecond
)

// Lock waits until no other process has f locked, and locks it until f is closed. It is mostly a
// folder: who locks a file that is replaced must see afterwards whether it still has its name.
func Lock(ctx context.Context, f *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, lockWithin)
	defer cancel()
	tick := time.NewTicker(lockRetry)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("locking: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("another process has the lock: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// cause leaves out the temporary file's name, which says nothing to a person.
func cause(err error) error {
	var named *fs.PathError
	if errors.As(err, &named) {
		return named.Err
	}
	return err
}
