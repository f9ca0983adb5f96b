package hostfs

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/problem"
)

const maxLinks = 40 // as the kernel's own limit, path_resolution(7)

// found is what a path stands for, opened part by part. The file that is checked is the file that
// is read: nothing is looked up by its name a second time.
type found struct {
	real string // the path with links followed

	// dir is the folder that the last part is in, and base that part; dir is nil if that folder
	// is missing.
	dir  *os.File
	base string

	// node is what is there, opened with O_PATH; nil if it is missing. stat describes it.
	node *os.File
	stat unix.Stat_t

	// unsafe says which part another user than root could have put there or changed; nil if only
	// root could. It is about dir and all above it, and about node.
	unsafe *problem.Problem
}

func (f *found) close() {
	if f.dir != nil {
		_ = f.dir.Close()
	}
	if f.node != nil {
		_ = f.node.Close()
	}
}

// level is one folder on the way down.
type level struct {
	dir    *os.File
	path   string
	unsafe *problem.Problem // about this folder and all above it
}

// walker opens the parts of one path in turn.
type walker struct {
	host   *Host
	name   string
	levels []level // from the root down
	links  int
	// While the rest of the path is at least floor long, its first part comes from a link's target.
	floor int
}

// walk opens name part by part, each with O_PATH|O_NOFOLLOW in the folder before it. It follows a
// link only if no user but root could have put it there, and not at all if follow is false. The
// caller must close the result.
func (h *Host) walk(name string, follow bool) (*found, error) {
	w := &walker{host: h, name: name, floor: math.MaxInt}
	defer w.pop(0)
	var top unix.Stat_t
	if err := unix.Fstat(int(h.top.Fd()), &top); err != nil {
		return nil, Explain(name, "looking it up", err)
	}
	w.levels = []level{{h.top, "/", h.unsafePart(name, "/", &top)}}
	rest := strings.Split(strings.Trim(path.Clean("/"+name), "/"), "/")
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if err := w.up(); err != nil {
				return nil, err
			}
			continue
		}
		node, stat, err := openNode(w.at().dir, part)
		if errors.Is(err, fs.ErrNotExist) {
			return w.missing(part, rest)
		} else if err != nil {
			return nil, Explain(name, "looking it up", err)
		}
		if stat.Mode&unix.S_IFMT == unix.S_IFLNK {
			rest, err = w.link(node, stat, part, rest, follow)
			_ = node.Close()
			if err != nil {
				return nil, err
			}
			continue
		}
		if last(rest) && stat.Mode&unix.S_IFMT != unix.S_IFDIR {
			return w.end(node, stat, part)
		}
		if err := w.down(node, stat, part); err != nil {
			return nil, err
		}
	}
	return w.endFolder()
}

// last reports whether no part of rest leads anywhere.
func last(rest []string) bool {
	for _, part := range rest {
		if part != "" && part != "." {
			return false
		}
	}
	return true
}

func (w *walker) at() level { return w.levels[len(w.levels)-1] }

// pop closes the levels from number n on, except the root's, which is the host's.
func (w *walker) pop(n int) {
	for _, l := range w.levels[max(n, 1):] {
		_ = l.dir.Close()
	}
	w.levels = w.levels[:max(n, 1)]
}

func (w *walker) up() error {
	if len(w.levels) > 1 {
		w.pop(len(w.levels) - 1)
	} else if !w.host.running {
		return &problem.Problem{Code: "link-leaves-root", Path: w.name, Text: "symbolic link that leaves " + w.host.dir, Hint: "make it point inside"}
	}
	return nil
}

func (w *walker) down(node *os.File, stat *unix.Stat_t, part string) error {
	at := w.at()
	next := path.Join(at.path, part)
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		_ = node.Close()
		return Explain(w.name, "looking it up", unix.ENOTDIR)
	}
	unsafe := at.unsafe
	if unsafe == nil {
		unsafe = w.host.unsafePart(w.name, next, stat)
	}
	w.levels = append(w.levels, level{node, next, unsafe})
	return nil
}

// link replaces a link by its target.
func (w *walker) link(node *os.File, stat *unix.Stat_t, part string, rest []string, follow bool) ([]string, error) {
	at := w.at()
	next := path.Join(at.path, part)
	if !follow {
		return nil, &problem.Problem{Code: "file-changing", Path: w.name, Text: problem.QuotePath(next) + " became a symbolic link", Hint: "run the command again"}
	}
	unsafe := at.unsafe
	if unsafe == nil {
		unsafe = w.host.unsafePart(w.name, next, stat)
	}
	if unsafe != nil {
		p := *unsafe
		p.Text = "the symbolic link " + problem.QuotePath(next) + " is not followed, because " + p.Text
		return nil, &p
	}
	if w.links++; w.links > maxLinks {
		return nil, &problem.Problem{Code: "link-loop", Path: w.name, Text: "loop of symbolic links", Hint: "remove one of them"}
	}
	target, err := readlink(node)
	if err != nil {
		return nil, Explain(w.name, "looking it up", err)
	}
	if path.IsAbs(target) {
		w.pop(1)
	}
	w.floor = min(w.floor, len(rest))
	return append(strings.Split(target, "/"), rest...), nil
}

// missing ends the walk at a part that does not exist. The number of parts left tells whether a link
// led there.
func (w *walker) missing(part string, rest []string) (*found, error) {
	at := w.at()
	next := path.Join(at.path, part)
	if len(rest) >= w.floor {
		return nil, &problem.Problem{Code: "link-dangling", Path: w.name, Text: "symbolic link to " + problem.QuotePath(next) + ", which does not exist",
			Hint: "create the file or remove the link"}
	}
	f := &found{real: path.Join(append([]string{next}, rest...)...), unsafe: at.unsafe}
	f.base = path.Base(f.real)
	if last(rest) {
		f.dir = w.take()
	}
	return f, nil
}

// take returns the folder that the walk is in, for the caller to close.
func (w *walker) take() *os.File {
	at := w.at()
	if len(w.levels) > 1 {
		w.levels = w.levels[:len(w.levels)-1]
		return at.dir
	}
	fd, err := unix.FcntlInt(at.dir.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), at.path)
}

func (w *walker) end(node *os.File, stat *unix.Stat_t, part string) (*found, error) {
	at := w.at()
	f := &found{real: path.Join(at.path, part), base: part, node: node, stat: *stat, unsafe: at.unsafe}
	if f.unsafe == nil {
		f.unsafe = w.host.unsafePart(w.name, f.real, stat)
	}
	f.dir = w.take()
	return f, nil
}

// endFolder ends the walk at a folder.
func (w *walker) endFolder() (*found, error) {
	at := w.at()
	f := &found{real: at.path, base: path.Base(at.path), node: w.take(), unsafe: at.unsafe}
	if f.node == nil {
		return nil, Explain(w.name, "looking it up", unix.EMFILE)
	}
	if err := unix.Fstat(int(f.node.Fd()), &f.stat); err != nil {
		f.close()
		return nil, Explain(w.name, "looking it up", err)
	}
	if at.path == "/" {
		f.base = "."
	}
	f.dir = w.take()
	return f, nil
}

// openNode opens what is at part in dir, whatever it is, without following or reading it.
func openNode(dir *os.File, part string) (*os.File, *unix.Stat_t, error) {
	fd, err := unix.Openat(int(dir.Fd()), part, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	node := os.NewFile(uintptr(fd), part)
	stat := new(unix.Stat_t)
	if err := unix.Fstat(fd, stat); err != nil {
		_ = node.Close()
		return nil, nil, err
	}
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) == nil && st.Type == unix.AUTOFS_SUPER_MAGIC && stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		return mount(dir, node, part)
	}
	return node, stat, nil
}

// mount opens a folder that automount(8) mounts when it is opened, which O_PATH does not do.
func mount(dir, node *os.File, part string) (*os.File, *unix.Stat_t, error) {
	_ = node.Close()
	fd, err := unix.Openat(int(dir.Fd()), part, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	stat := new(unix.Stat_t)
	if err := unix.Fstat(fd, stat); err != nil {
		_ = unix.Close(fd)
		return nil, nil, err
	}
	return os.NewFile(uintptr(fd), part), stat, nil
}

// readlink reads the target of an open link.
func readlink(node *os.File) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(node.Fd()), "", buf)
	if err != nil {
		return "", err
	}
	if n == len(buf) {
		return "", unix.ENAMETOOLONG
	}
	return string(buf[:n]), nil
}

// open opens what the walk found, makes sure that it is still the same, and updates stat.
func (f *found) open(flags int) (*os.File, error) {
	if f.node == nil {
		return nil, unix.ENOENT
	}
	// O_NONBLOCK, since opening a named pipe in the file's place would block for ever.
	fd, err := unix.Openat(int(f.dir.Fd()), f.base, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), f.real)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		_ = file.Close()
		return nil, err
	}
	if stat.Dev != f.stat.Dev || stat.Ino != f.stat.Ino {
		_ = file.Close()
		return nil, &problem.Problem{Code: "file-changing", Path: f.real, Text: "was replaced while it was read", Hint: "run the command again"}
	}
	f.stat = stat
	return file, nil
}
