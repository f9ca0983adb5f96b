package config

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/sidemirror/sidemirror/internal/durable"
)

// maxLastGood limits how many configurations a folder holds: one for each configuration file
// that sidemirror was started with.
const maxLastGood = 16

// LastGood is the folder that holds the last configuration that was in force, so that
// sidemirror can start while the file is faulty.
type LastGood string

// DefaultLastGood returns the folder inside the service's state folder, which systemd names
// in the environment.
func DefaultLastGood(environ []string) LastGood {
	state := "/var/lib/sidemirror"
	for _, entry := range environ {
		if list, found := strings.CutPrefix(entry, "STATE_DIRECTORY="); found && list != "" {
			state, _, _ = strings.Cut(list, ":")
		}
	}
	return LastGood(filepath.Join(state, "last-good-config"))
}

// Save stores the text of c's file durably, if it differs from what is stored.
func (l LastGood) Save(c *Config) error {
	name, err := lastGoodName(c.File)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(l), 0o700); err != nil {
		return fmt.Errorf("storing the last good configuration: %w", err)
	}
	folder, err := l.open()
	if err != nil {
		return fmt.Errorf("storing the last good configuration: %w", err)
	}
	defer folder.Close()
	data := []byte(c.Contents())
	if stored, err := readOwn(folder, name); err == nil && bytes.Equal(stored, data) {
		return nil
	}
	l.prune(name)
	if err := durable.Replace(folder, name, data, durable.Options{}); err != nil {
		return fmt.Errorf("storing the last good configuration: %w", err)
	}
	return nil
}

// Load reads the stored text of the file that s names, together with the environment of s. The
// error is fs.ErrNotExist if none is stored. Only root, this user, or one of owners may have
// written the text.
func (l LastGood) Load(s Source, owners ...uint32) (*Config, error) {
	name, err := lastGoodName(s.File())
	if err != nil {
		return nil, err
	}
	folder, err := l.open()
	if err != nil {
		return nil, fmt.Errorf("reading the last good configuration: %w", err)
	}
	defer folder.Close()
	data, err := readOwn(folder, name, owners...)
	if err != nil {
		return nil, fmt.Errorf("reading the last good configuration: %w", err)
	}
	return s.Parse(data)
}

func (l LastGood) open() (*os.File, error) {
	return os.OpenFile(string(l), os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
}

// lastGoodName returns the name that the text of file is stored under.
func lastGoodName(file string) (string, error) {
	absolute, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(absolute))
	return hex.EncodeToString(sum[:8]) + ".toml", nil
}

// readOwn reads a file of folder that only root, this user or one of owners could have written.
func readOwn(folder *os.File, name string, owners ...uint32) ([]byte, error) {
	root, err := os.OpenRoot(folder.Name())
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	owners = append(owners, 0, uint32(os.Geteuid()))
	if info.Mode().Perm()&0o022 != 0 || !slices.Contains(owners, info.Sys().(*syscall.Stat_t).Uid) {
		_ = f.Close()
		return nil, errors.New(filepath.Join(folder.Name(), name) + " can be written by another user")
	}
	return readAll(f)
}

// prune removes the oldest files but keeps room for name.
func (l LastGood) prune(name string) {
	entries, err := os.ReadDir(string(l))
	if err != nil {
		return
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name || e.IsDir() })
	slices.SortFunc(entries, func(a, b fs.DirEntry) int {
		infoA, errA := a.Info()
		infoB, errB := b.Info()
		if errA != nil || errB != nil {
			return 0
		}
		return cmp.Compare(infoA.ModTime().UnixNano(), infoB.ModTime().UnixNano())
	})
	for len(entries) >= maxLastGood {
		_ = os.Remove(filepath.Join(string(l), entries[0].Name()))
		entries = entries[1:]
	}
}
