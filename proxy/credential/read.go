package credential

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// documentLimit is far more than any config.json needs.
const documentLimit = 1 << 20

// place is where a document is, which kind of source reads it, and what runs the helpers that it
// names.
type place struct {
	kind, path string
	helpers    Helpers
}

// stamp tells one state of a file from the next: content, owner and mode.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

func stampOf(info fs.FileInfo) stamp {
	st := info.Sys().(*syscall.Stat_t)
	return stamp{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
}

// settled reports whether a later change would show in the stamp. File systems store times in
// steps, of 4 ms to 2 s, and two writes within one step look alike (git calls such a file "racily
// clean").
func (s stamp) settled(now time.Time) bool {
	return now.Sub(time.Unix(s.ctime.Unix())) > 2*time.Second
}

// errBeingWritten is worth another try.
var errBeingWritten = errors.New("it changed while it was read")

// read returns the file's content and its state, which is nil if there is none to remember. err
// says what to do about a file that is refused.
func (p place) read() (data []byte, state fs.FileInfo, err error) {
	// A root does not follow symlinks out of its folder, and does follow those
	// within, which is how Kubernetes mounts a secret.
	folder, err := os.OpenRoot(filepath.Dir(p.path))
	if err != nil {
		return nil, nil, p.explain(err)
	}
	defer folder.Close()
	// O_NONBLOCK: opening a pipe must not wait for its writer.
	f, err := folder.OpenFile(filepath.Base(p.path), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, p.explain(err)
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if err := p.acceptable(folder, before); err != nil {
		return nil, before, err
	}
	data, err = io.ReadAll(io.LimitReader(f, documentLimit+1))
	if err != nil {
		return nil, nil, err
	}
	after, err := f.Stat()
	switch {
	case err != nil:
		return nil, nil, err
	case stampOf(before) != stampOf(after):
		return nil, nil, errBeingWritten
	case len(data) > documentLimit:
		return nil, after, fmt.Errorf("it is longer than %d bytes", documentLimit)
	}
	return data, after, nil
}

// explain adds what to do to an error of opening the file.
func (p place) explain(err error) error {
	info, statErr := os.Lstat(p.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return err
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: let the user that sidemirror runs as read it (chgrp and chmod 0640), or use sidemirror login instead", err)
	case statErr == nil && info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%w: it is a symbolic link, and is followed within its folder only: name the file that it leads to", err)
	}
	return err
}

// acceptable checks owner and mode as docs/security.md promises. The store may also belong to the
// owner of its folder, who could replace it anyway: root runs login, the daemon has its own user.
func (p place) acceptable(folder *os.Root, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	allowed := []uint32{0, uint32(os.Geteuid())}
	if p.kind == storeKind {
		dir, err := folder.Stat(".")
		if err != nil {
			return err
		}
		allowed = append(allowed, owner(dir))
	}
	uid := owner(info)
	if !slices.Contains(allowed, uid) {
		return fmt.Errorf("it belongs to uid %d, who is neither root nor the user that sidemirror runs as: pass it to the service with LoadCredential=, see docs/credentials.md", uid)
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("others may write to it (mode %04o): chmod go-w %s", perm, p.path)
	}
	return nil
}

func owner(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }
