package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// maxFileSize limits the configuration file, in bytes.
const maxFileSize = 1 << 20

// Source is where a configuration is read from.
type Source struct {
	// Path names the file. If it is empty, SIDEMIRROR_CONFIG in Environ does, and if that is
	// empty too, it is DefaultFile, the only one that may be missing.
	Path string

	// Environ is the environment, in the form of os.Environ.
	Environ []string

	// Root is the host's tree: "" and "/" are the running host. In another tree the file is
	// the tree's DefaultFile, unless Path names one.
	Root string
}

// Load reads the configuration at path, or the default one if path is empty: see [Source].
func Load(path string, environ []string) (*Config, error) {
	return Source{Path: path, Environ: environ}.Load()
}

// Load reads the configuration: the defaults, changed by the file, changed by the environment.
// If what is written there is wrong, the error is an [*Error] or one with a method
// ExitCode() int that returns 2.
func (s Source) Load() (*Config, error) {
	vars, err := environment(s.Environ)
	if err != nil {
		return nil, err
	}
	path, optional := s.file(vars)
	data, err := s.read(path)
	if errors.Is(err, fs.ErrNotExist) {
		if !optional {
			return nil, &missingFileError{path, err}
		}
		err = nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, &problem.Problem{Code: "config-unreadable", Text: "reading the configuration", Err: err, Hint: "run as root"}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return parse(path, data, vars)
}

// Parse is Load for a file that contains data.
func (s Source) Parse(data []byte) (*Config, error) {
	vars, err := environment(s.Environ)
	if err != nil {
		return nil, err
	}
	path, _ := s.file(vars)
	return parse(path, data, vars)
}

// Listen returns the addresses to listen on although Load failed with err: those that the
// faulty configuration names, as far as it can be read, or else the default.
func (s Source) Listen(err error) []netip.AddrPort {
	if e, ok := errors.AsType[*Error](err); ok && len(e.listen) > 0 {
		return e.listen
	}
	if c, err := s.Parse(nil); err == nil { // the environment alone
		return c.Listen
	}
	return Default().Listen
}

// File returns the path of the file that Load reads, whether it exists or not.
func (s Source) File() string {
	vars, err := environment(s.Environ)
	if err != nil {
		vars = nil // Load reports it
	}
	path, _ := s.file(vars)
	return path
}

// file returns the path of the file, and whether it may be missing.
func (s Source) file(vars map[string]string) (path string, optional bool) {
	switch {
	case s.Path != "":
		return s.Path, false
	case s.inTree():
		return filepath.Join(s.Root, DefaultFile), true
	case vars[configVariable] != "":
		return vars[configVariable], false
	}
	return DefaultFile, true
}

func (s Source) inTree() bool { return s.Root != "" && s.Root != "/" }

func (s Source) read(path string) ([]byte, error) {
	if s.Path != "" || !s.inTree() {
		// Without O_NONBLOCK, opening a named pipe waits for its writer.
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		return readAll(f)
	}
	// A link in the tree must not lead to a file of the running host.
	root, err := os.OpenRoot(s.Root)
	if err != nil {
		//nolint:errorlint // a missing tree must not look like a missing file, which is optional
		return nil, fmt.Errorf("opening the tree: %v", err)
	}
	defer root.Close()
	f, err := root.OpenFile(strings.TrimPrefix(DefaultFile, "/"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return readAll(f)
}

// readAll reads the regular file f and closes it.
func readAll(f *os.File) ([]byte, error) {
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", f.Name())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("%s has more than %d bytes, which no configuration needs", f.Name(), maxFileSize)
	}
	return data, nil
}

// missingFileError reports a file that was named and does not exist: wrong usage.
type missingFileError struct {
	path string
	err  error
}

// Error implements error.
func (e *missingFileError) Error() string {
	return fmt.Sprintf("reading the configuration %s: there is no such file; name another with --config or %s, or none for %s", e.path, configVariable, DefaultFile)
}

// Unwrap returns the cause.
func (e *missingFileError) Unwrap() error { return e.err }

// ExitCode returns 2: wrong usage.
func (*missingFileError) ExitCode() int { return 2 }
