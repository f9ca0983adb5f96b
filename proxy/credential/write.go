package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/durable"
)

// change edits "auths" under a lock and replaces the file by the result. Everything else in the
// file stays.
func (s *Store) change(ctx context.Context, edit func(auths map[string]json.RawMessage) error) error {
	dir := filepath.Dir(s.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// The folder itself is locked, since the file is replaced while the lock is held.
	self, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer self.Close()
	if err := durable.Lock(ctx, self); err != nil {
		return fmt.Errorf("another login or logout is under way: %w", err)
	}
	document, auths, err := s.read()
	if err != nil {
		return err
	}
	if err := edit(auths); err != nil {
		return err
	}
	if document["auths"], err = json.Marshal(auths); err != nil {
		return err
	}
	data, err := json.MarshalIndent(document, "", "\t")
	if err != nil {
		return err
	}
	if len(data) >= documentLimit {
		return fmt.Errorf("it would be longer than %d bytes", documentLimit)
	}
	data = append(data, '\n')
	err = durable.Replace(self, filepath.Base(s.path), data, durable.Options{
		Prepare: func(f *os.File) error { return giveTo(self, f) },
	})
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return s.shorten(self, data, len(auths), err)
	}
	return err
}

// shorten changes the file without space for another one, so that a login can be deleted from a
// full disk. It removes a file without logins, and otherwise writes data over what is there,
// filled up with spaces, so that a crash meanwhile leaves no end of the old text behind.
func (s *Store) shorten(folder *os.File, data []byte, logins int, full error) error {
	if logins == 0 {
		return durable.Remove(folder, filepath.Base(s.path), durable.Options{})
	}
	fd, err := unix.Openat(int(folder.Fd()), filepath.Base(s.path), unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return full
	}
	f := os.NewFile(uintptr(fd), s.path)
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() < int64(len(data)) {
		return full
	}
	data = append(data, bytes.Repeat([]byte(" "), int(info.Size())-len(data))...)
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	return f.Sync()
}

// read returns the store's file as it is, under the rules of a look-up.
func (s *Store) read() (document, auths map[string]json.RawMessage, err error) {
	document, auths = map[string]json.RawMessage{}, map[string]json.RawMessage{}
	data, _, err := s.place().read()
	if errors.Is(err, fs.ErrNotExist) {
		return document, auths, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return nil, nil, fmt.Errorf("%w (repair the file or move it away)", notJSON(data, err))
	}
	if document == nil { // the file says null
		document = map[string]json.RawMessage{}
	}
	if old, ok := document["auths"]; ok {
		if err := json.Unmarshal(old, &auths); err != nil || auths == nil {
			return nil, nil, errors.New(`its "auths" is not an object: repair the file or move it away`)
		}
	}
	return document, auths, nil
}

// giveTo makes the folder's owner the file's: root runs login, and the daemon that reads the file
// has a user of its own.
func giveTo(folder, f *os.File) error {
	info, err := folder.Stat()
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	if int(st.Uid) == os.Geteuid() {
		return nil
	}
	if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("giving it to uid %d, who owns the folder: %w", st.Uid, err)
	}
	return nil
}
