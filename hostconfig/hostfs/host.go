// Package hostfs reads and writes the files of a host below one folder, durably and without ever
// leaving that folder.
package hostfs

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is a host's file system below one folder. Paths given to it are those that the host itself
// would use ("/etc/docker/daemon.json"). An absolute symbolic link means what it would mean to
// that host: it starts at the tree's own root, as in a chroot. A Host is for one goroutine.
type Host struct {
	// Step, if not nil, is called before each change, and stops it by an error. Tests use it
	// to fail or to kill the process at each step.
	Step func(op, path string) error

	// InPlace, if not nil, is called before each write that cannot be made by a rename. The
	// function that it returns is called when the file is whole again.
	InPlace func(write InPlace) (done func() error, err error)

	// Torn is a write in place that was killed halfway, or nil. Until it is undone, reading that
	// file returns what was there before it.
	Torn *InPlace

	dir     string
	root    *os.Root
	top     *os.File        // the same folder
	running bool            // it is "/"
	owners  []uint32        // users that count as root
	groups  []uint32        // groups that may write in a tree that is not the running host's
	asked   map[string]bool // the paths that anything was asked about
}

// Open opens the host below dir.
func Open(dir string) (*Host, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the host's tree: %w", err)
	}
	top, err := root.Open(".")
	if err != nil {
		_ = root.Close()
		return nil, fmt.Errorf("opening the host's tree: %w", err)
	}
	h := &Host{dir: dir, root: root, top: top, asked: make(map[string]bool)}
	if err := h.identify(); err != nil {
		h.Close()
		return nil, fmt.Errorf("opening the host's tree: %w", err)
	}
	return h, nil
}

// identify finds out whether the tree is the running host's, and who counts as root in it.
func (h *Host) identify() error {
	var own, running unix.Stat_t
	if err := unix.Fstat(int(h.top.Fd()), &own); err != nil {
		return err
	}
	if err := unix.Stat("/", &running); err != nil {
		return err
	}
	h.owners = []uint32{0}
	if h.running = own.Dev == running.Dev && own.Ino == running.Ino; !h.running {
		h.owners = append(h.owners, own.Uid, uint32(unix.Geteuid()))
		h.groups = []uint32{0, own.Gid, uint32(unix.Getegid())}
	}
	return nil
}

// Close closes the host. It does not give up a lock.
func (h *Host) Close() {
	_ = h.root.Close()
	_ = h.top.Close()
}

// Dir returns the folder that the host is below: "/" for the running one.
func (h *Host) Dir() string { return h.dir }

// Watch adds a path to what [Host.Seen] returns, although nothing reads it.
func (h *Host) Watch(name string) { h.asked[name] = true }

// Seen returns the paths that were asked about, sorted. A path with a slash at its end stands for
// all that is in that folder.
func (h *Host) Seen() []string { return slices.Sorted(maps.Keys(h.asked)) }

// step asks Step whether op may be done to name.
func (h *Host) step(op, name string) error {
	if h.Step == nil {
		return nil
	}
	return h.Step(op, name)
}

// local returns name as os.Root wants it.
func local(name string) string {
	if name = strings.TrimPrefix(path.Clean("/"+name), "/"); name == "" {
		return "."
	}
	return name
}
