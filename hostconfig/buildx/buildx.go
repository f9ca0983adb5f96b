// Package buildx writes a user's own configuration for new builders of docker buildx, and takes
// sidemirror out of it again.
package buildx

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/internal/durable"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// maxFile bounds the file, in bytes.
const maxFile = 1 << 20

// File returns the file from which docker buildx makes the configuration of new builders, for a user
// with that home and the environment that getenv reads.
func File(home string, getenv func(string) string) string {
	folder := getenv("BUILDX_CONFIG")
	if folder == "" {
		folder = getenv("DOCKER_CONFIG")
		if folder == "" {
			folder = filepath.Join(home, ".docker")
		}
		folder = filepath.Join(folder, "buildx")
	}
	return filepath.Join(folder, "buildkitd.default.toml")
}

// Set makes new builders ask sidemirror first, at mirror ("172.17.0.1:305"), for the content of
// registries. An entry for another address is replaced. It reports whether the file has changed.
func Set(file, mirror string, registries []string) (changed bool, err error) {
	want := splice.Builder{BuildKit: splice.BuildKit{Mirror: mirror, PlainHTTP: true, Registries: registries}}
	real, err := resolve(file)
	if err != nil {
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(real), 0o700); err != nil {
		return false, err
	}
	return edit(real, func(name string, now []byte) ([]byte, error) {
		if want.Settled(name, now) {
			return now, nil
		}
		removed, err := splice.RemoveBuilder(name, now, []string{"http://" + mirror})
		if err != nil {
			return nil, err
		}
		return want.Add(name, removed.Rest)
	})
}

// Unset removes sidemirror's entry, and the file if there is nothing else in it. mirrors are addresses
// that sidemirror may have in it, in case another program has removed the marks. It reports whether
// the file has changed.
func Unset(file string, mirrors []string) (changed bool, err error) {
	real, err := resolve(file)
	if err != nil {
		return false, err
	}
	if _, err := os.Stat(filepath.Dir(real)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	var urls []string
	for _, mirror := range mirrors {
		urls = append(urls, "http://"+mirror)
	}
	return edit(real, func(name string, now []byte) ([]byte, error) {
		removed, err := splice.RemoveBuilder(name, now, urls)
		if err != nil || removed.Bare {
			return nil, err
		}
		return removed.Rest, nil
	})
}

// resolve follows a symbolic link, as people have to their own collections of such files.
func resolve(file string) (string, error) {
	real, err := filepath.EvalSymlinks(file)
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil
	}
	return real, err
}

// edit replaces a file with what change makes of it. A file that does not exist is nil, before and after.
func edit(file string, change func(name string, now []byte) ([]byte, error)) (changed bool, err error) {
	folder, err := os.OpenFile(filepath.Dir(file), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, err
	}
	defer folder.Close()
	name := filepath.Base(file)
	now, mode, err := read(folder, name, file)
	if err != nil {
		return false, err
	}
	next, err := change(file, now)
	switch {
	case err != nil:
		return false, err
	case string(next) == string(now):
		return false, nil
	case len(next) == 0 && now != nil:
		return true, durable.Remove(folder, name, durable.Options{})
	}
	check := func() error {
		again, _, err := read(folder, name, file)
		if err == nil && string(again) != string(now) {
			err = fmt.Errorf("%s was changed by another program at the same time; run the command again", file)
		}
		return err
	}
	return true, durable.Replace(folder, name, next, durable.Options{
		New: now == nil, Check: check, Prepare: func(f *os.File) error { return f.Chmod(mode) },
	})
}

// read returns the contents of a file and its mode; nil if there is no file.
func read(folder *os.File, name, path string) ([]byte, fs.FileMode, error) {
	fd, err := unix.Openat(int(folder.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, 0o644, nil
	}
	if err != nil {
		return nil, 0, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, &problem.Problem{Code: "buildx-file", Path: path, Text: "not a file", Hint: "remove it, or set BUILDX_CONFIG"}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = &problem.Problem{Code: "buildx-file", Path: path, Text: fmt.Sprintf("longer than %d MiB", maxFile>>20), Hint: "make it shorter"}
	}
	if data == nil {
		data = []byte{}
	}
	return data, info.Mode().Perm(), err
}
