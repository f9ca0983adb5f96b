package hostconfig

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxFile    = 16 << 20 // a configuration file above this is not one
	maxLinks   = 40       // as the kernel's own limit, path_resolution(7)
	maxEntries = 4096     // names read of one folder
	maxXattrs  = 64 << 10 // all extended attributes of one file
)

// tree is a host's file system below one folder. Paths given to it are those
// that the host itself would use ("/etc/docker/daemon.json"). An absolute
// symbolic link means what it would mean to that host: it starts at the tree's
// own root, as in a chroot.
type tree struct {
	dir  string
	root *os.Root

	// step, if not nil, is told of each change before it is made, and may refuse
	// it: that is how the tests fail or kill us at any point.
	step func(op, path string) error

	// asked are the paths that anything was asked about.
	asked map[string]bool

	// inPlace, if not nil, is told of each write that cannot be made by a rename.
	inPlace func(intent) (done func() error, err error)

	// pending is a write in place that was killed half-way. Until it is undone, what
	// was there before it is what is read.
	pending *intent
}

func openTree(dir string, step func(op, path string) error) (*tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the host's tree: %w", err)
	}
	return &tree{dir: dir, root: root, step: step, asked: make(map[string]bool)}, nil
}

func (t *tree) close() { _ = t.root.Close() }

// seen are the paths that were asked about, but for what changes by our own doing.
func (t *tree) seen() []string {
	list := slices.Sorted(maps.Keys(t.asked))
	return slices.DeleteFunc(list, func(name string) bool { return strings.HasPrefix(name, journalFolder) })
}

// about asks step whether op may be done to name.
func (t *tree) about(op, name string) error {
	if t.step == nil {
		return nil
	}
	return t.step(op, name)
}

// watch adds to what is seen a path whose change says something though nothing reads it.
func (t *tree) watch(name string) { t.asked[name] = true }

var errBusy = errors.New("another sidemirror is changing")

// lock keeps two of us from changing one host at a time. The lock is on the root
// folder itself, so that it leaves nothing behind, and ends with its file.
func (t *tree) lock() (io.Closer, error) {
	f, err := t.root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", t.dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w %s just now; try again when it is done", errBusy, t.dir)
		}
		return nil, fmt.Errorf("locking %s: %w", t.dir, err)
	}
	return lock{f}, nil
}

// lock is given up by name, since a program that another goroutine starts holds a copy of the
// descriptor until it is executed.
type lock struct{ f *os.File }

func (l lock) Close() error {
	return errors.Join(unix.Flock(int(l.f.Fd()), unix.LOCK_UN), l.f.Close())
}

// local is name as os.Root wants it.
func local(name string) string {
	if name = strings.TrimPrefix(path.Clean("/"+name), "/"); name == "" {
		return "."
	}
	return name
}

// resolve follows the symbolic links in name and answers with the path that it
// stands for. What is missing at the end of the path is kept as it is; a link
// that points to nothing is refused, since writing through it would make a file
// where nobody expects one.
func (t *tree) resolve(name string) (string, error) {
	t.asked[name] = true
	return t.follow(name)
}

func (t *tree) follow(name string) (string, error) {
	rest := strings.Split(strings.Trim(path.Clean("/"+name), "/"), "/")
	at, links := "/", 0
	// While rest is at least floor long, its first part comes from a link's target.
	floor := math.MaxInt
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if at == "/" && t.dir != "/" {
				return "", &refusal{path: name, reason: "is a symbolic link that leaves " + t.dir, mend: "make it point inside"}
			}
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		info, err := t.root.Lstat(local(next))
		switch {
		case errors.Is(err, fs.ErrNotExist) && len(rest) >= floor:
			return "", &refusal{path: name, reason: "is a symbolic link to " + next + ", which does not exist", mend: "make the file or remove the link"}
		case errors.Is(err, fs.ErrNotExist):
			return path.Join(append([]string{next}, rest...)...), nil
		case err != nil:
			return "", fmt.Errorf("reading %s: %w", name, err)
		case info.Mode()&fs.ModeSymlink == 0:
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", &refusal{path: name, reason: "is a loop of symbolic links", mend: "remove one of them"}
		}
		target, err := t.root.Readlink(local(next))
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", name, err)
		}
		if path.IsAbs(target) {
			at = "/"
		}
		floor = min(floor, len(rest))
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
}

// attrs is what a file has beside its bytes.
type attrs struct {
	Mode   uint32            `json:"mode"`
	UID    int               `json:"uid"`
	GID    int               `json:"gid"`
	Mtime  time.Time         `json:"mtime"`
	Xattrs map[string][]byte `json:"xattrs,omitempty"` // the SELinux label and ACLs among them

	changed time.Time // ctime, which nobody can set
}

// file is one file as it was read. data is nil where there is none.
type file struct {
	path, real string
	data       []byte
	attrs      attrs
}

func (f file) exists() bool { return f.data != nil }

// read reads a file of at most maxFile bytes. A missing one is no error. One that
// could not be replaced without harm (not regular, other names linked to it) is
// refused here, before anything is planned about it.
func (t *tree) read(name string) (file, error) {
	real, err := t.resolve(name)
	if err != nil {
		return file{}, err
	}
	f := file{path: name, real: real}
	dir, err := t.root.Open(local(path.Dir(real)))
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	} else if err != nil {
		return file{}, explain(name, "opening the folder of", err)
	}
	defer dir.Close()
	f.data, f.attrs, err = readAt(dir, path.Base(real), name)
	if in := t.pending; in != nil && in.Real == real && torn(f.data, in.Before, in.After) && !bytes.Equal(f.data, in.After) {
		f.data, f.attrs.Mtime = in.Before, in.Mtime
	}
	return f, err
}

func readAt(dir *os.File, base, name string) ([]byte, attrs, error) {
	// O_NONBLOCK, or a named pipe in the file's place would hold us for ever.
	fd, err := unix.Openat(int(dir.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, attrs{}, nil
	case errors.Is(err, unix.ELOOP):
		return nil, attrs{}, &refusal{path: name, reason: "became a symbolic link while we looked", mend: "run again"}
	case err != nil:
		return nil, attrs{}, explain(name, "opening", err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, attrs{}, explain(name, "reading", err)
	}
	st := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, attrs{}, &refusal{path: name, reason: "is not a regular file", mend: "move it away"}
	case st.Nlink > 1:
		return nil, attrs{}, &refusal{path: name,
			reason: fmt.Sprintf("has %d hard links: replacing it would part them, writing through it would change the others", st.Nlink),
			mend:   "make it a file of its own (cp it and mv the copy over it)"}
	case info.Size() > maxFile:
		return nil, attrs{}, &refusal{path: name, reason: fmt.Sprintf("is larger than %d MiB", maxFile>>20), mend: "look what it is"}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, attrs{}, explain(name, "reading", err)
	}
	if len(data) > maxFile {
		return nil, attrs{}, &refusal{path: name, reason: "grows while it is read", mend: "run again"}
	}
	xattrs, err := readXattrs(int(f.Fd()))
	if err != nil {
		return nil, attrs{}, explain(name, "reading the extended attributes of", err)
	}
	at := attrs{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), Mtime: info.ModTime(), Xattrs: xattrs, changed: time.Unix(st.Ctim.Unix())}
	return data, at, nil
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

// names lists a folder, sorted; none where there is no folder.
func (t *tree) names(folder string) ([]fs.DirEntry, error) {
	t.asked[folder+"/"] = true
	real, err := t.resolve(folder)
	if err != nil {
		return nil, err
	}
	d, err := t.root.Open(local(real))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("listing %s: %w", folder, err)
	}
	defer d.Close()
	list, err := d.ReadDir(maxEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("listing %s: %w", folder, err)
	}
	if len(list) == maxEntries {
		return nil, &refusal{path: folder, reason: fmt.Sprintf("has %d entries or more", maxEntries), mend: "look what it is"}
	}
	sortEntries(list)
	return list, nil
}

// glob lists the files that match a pattern, as filepath.Glob does.
func (t *tree) glob(pattern string) ([]string, error) {
	folders := []string{path.Dir(pattern)}
	if strings.ContainsAny(folders[0], `*?[\`) {
		var err error
		if folders, err = t.glob(folders[0]); err != nil {
			return nil, err
		}
	}
	var found []string
	for _, folder := range folders {
		if !t.isDir(folder) {
			t.asked[folder+"/"] = true
			continue
		}
		list, err := t.names(folder)
		if err != nil {
			return nil, err
		}
		for _, item := range list {
			if ok, err := path.Match(path.Base(pattern), item.Name()); ok && err == nil {
				found = append(found, path.Join(folder, item.Name()))
			}
		}
	}
	return found, nil
}

// isDir reports whether name is a folder, itself or through links inside the tree.
func (t *tree) isDir(name string) bool {
	info, ok := t.stat(name)
	return ok && info.IsDir()
}

// isFile reports whether name is a regular file, itself or through links inside the tree.
func (t *tree) isFile(name string) bool {
	info, ok := t.stat(name)
	return ok && info.Mode().IsRegular()
}

func (t *tree) stat(name string) (fs.FileInfo, bool) {
	real, err := t.resolve(name)
	if err != nil {
		return nil, false
	}
	info, err := t.root.Lstat(local(real))
	return info, err == nil
}
