package hostfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// MaxFile is the size in bytes above which a file is not read: no configuration is that large.
const MaxFile = 16 << 20

const (
	maxPeek    = 64 << 10 // read by Peek
	maxEntries = 4096     // names read of one folder
	maxXattrs  = 64 << 10 // all extended attributes of one file
)

// Attrs is what a file has besides its bytes.
type Attrs struct {
	Mode   uint32            `json:"mode"`
	UID    int               `json:"uid"`
	GID    int               `json:"gid"`
	Mtime  time.Time         `json:"mtime"`
	Xattrs map[string][]byte `json:"xattrs,omitempty"` // the SELinux label and ACLs among them

	// Changed is the kernel's own time of the last change, which no program can set.
	Changed time.Time `json:"-"`
}

// File is one file as it was read.
type File struct {
	// Path is the name that it was asked for by, Real what that stands for, links followed.
	Path, Real string

	// Data is what the file holds; nil if there is no file.
	Data []byte

	Attrs Attrs

	// Unsafe says why other users than root could have put the file there or changed it; nil if
	// only root could. See [Host.Trusted].
	Unsafe error
}

// Exists reports whether there is such a file.
func (f File) Exists() bool { return f.Data != nil }

// Hash returns a name for some content.
func Hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Same reports whether two files' contents are equal. A missing file (nil) and an empty one differ.
func Same(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

// Read reads a file of at most [MaxFile] bytes. A missing one is no error. One that could not be
// replaced without harm (not regular, other names linked to it) is refused.
func (h *Host) Read(name string) (File, error) {
	h.asked[name] = true
	at, err := h.walk(name, true)
	if err != nil {
		return File{}, err
	}
	defer at.close()
	f := File{Path: name, Real: at.real}
	if at.unsafe != nil {
		f.Unsafe = at.unsafe
	}
	if at.node == nil {
		return f, nil
	}
	f.Data, f.Attrs, err = at.read(name)
	if w := h.Torn; w != nil && w.Real == f.Real && w.tore(f.Data) && !bytes.Equal(f.Data, w.After) {
		f.Data, f.Attrs.Mtime = w.Before, w.Mtime
	}
	return f, err
}

// Peek reads the beginning of a file that is only looked at, such as one in /proc; nil if it cannot
// be read.
func (h *Host) Peek(name string) []byte {
	f, err := h.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPeek))
	if err != nil {
		return nil
	}
	return data
}

// Open opens a file or a folder for reading, without the checks of [Host.Read] on what kind of file
// it is.
func (h *Host) Open(name string) (*os.File, error) {
	f, err := h.walk(name, true)
	if err != nil {
		return nil, err
	}
	defer f.close()
	file, err := f.open(unix.O_RDONLY)
	if err != nil {
		return nil, Explain(name, "opening it", err)
	}
	return file, nil
}

// read reads what the walk found; nil if nothing.
func (f *found) read(name string) ([]byte, Attrs, error) {
	if f.node == nil {
		return nil, Attrs{}, nil
	}
	if err := readable(name, &f.stat); err != nil {
		return nil, Attrs{}, err // without opening it, which a device may notice
	}
	file, err := f.open(unix.O_RDONLY)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELOOP):
		return nil, Attrs{}, &problem.Problem{Code: "file-changing", Path: name, Text: "was replaced while it was read", Hint: "run the command again"}
	case err != nil:
		return nil, Attrs{}, Explain(name, "opening it", err)
	}
	defer file.Close()
	if err := readable(name, &f.stat); err != nil {
		return nil, Attrs{}, err
	}
	data, err := io.ReadAll(io.LimitReader(file, MaxFile+1))
	if err != nil {
		return nil, Attrs{}, Explain(name, "reading it", err)
	}
	if len(data) > MaxFile {
		return nil, Attrs{}, &problem.Problem{Code: "file-changing", Path: name, Text: "grows while it is read", Hint: "run the command again"}
	}
	xattrs, err := readXattrs(int(file.Fd()))
	if err != nil {
		return nil, Attrs{}, Explain(name, "reading its extended attributes", err)
	}
	st := f.stat
	return data, Attrs{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), Mtime: time.Unix(st.Mtim.Unix()), Xattrs: xattrs, Changed: time.Unix(st.Ctim.Unix())}, nil
}

// readable refuses a file that could not be read or replaced without harm.
func readable(name string, st *unix.Stat_t) error {
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return &problem.Problem{Code: "file-not-regular", Path: name, Text: "not a regular file", Hint: "move it away"}
	case st.Nlink > 1:
		return &problem.Problem{Code: "file-hard-linked", Path: name,
			Text: fmt.Sprintf("has %d hard links: replacing it would separate them, and writing through it would change the others", st.Nlink),
			Hint: "make it a file of its own: cp it, and mv the copy over it"}
	case st.Size > MaxFile:
		return &problem.Problem{Code: "file-too-large", Path: name, Text: fmt.Sprintf("larger than %d MiB", MaxFile>>20), Hint: "check what the file is"}
	}
	return nil
}

// readAt reads a file of an open folder; nil if it is missing.
func readAt(dir *os.File, base, name string) ([]byte, Attrs, error) {
	node, stat, err := openNode(dir, base)
	if errors.Is(err, unix.ENOENT) {
		return nil, Attrs{}, nil
	} else if err != nil {
		return nil, Attrs{}, Explain(name, "opening it", err)
	}
	defer node.Close()
	if stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil, Attrs{}, &problem.Problem{Code: "file-changing", Path: name, Text: "became a symbolic link", Hint: "run the command again"}
	}
	return (&found{real: name, dir: dir, base: base, node: node, stat: *stat}).read(name)
}

func readXattrs(fd int) (map[string][]byte, error) {
	names := make([]byte, maxXattrs)
	n, err := unix.Flistxattr(fd, names)
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	values := make(map[string][]byte)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		value := make([]byte, maxXattrs)
		n, err := unix.Fgetxattr(fd, name, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		values[name] = value[:n]
	}
	return values, nil
}

// readNames reads the entries of an open folder, sorted.
func readNames(d *os.File, folder string) ([]fs.DirEntry, error) {
	list, err := d.ReadDir(maxEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, Explain(folder, "listing it", err)
	}
	if len(list) == maxEntries {
		return nil, &problem.Problem{Code: "folder-too-large", Path: folder, Text: fmt.Sprintf("has %d entries or more", maxEntries), Hint: "check what they are"}
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}
