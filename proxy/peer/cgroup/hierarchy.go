// Package cgroup says which control group an id of cgroup v2 stands for, and whether a process in
// that group is a program of the host or part of a container.
package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Root is the path of the group that contains all others: the host's first one, or that of the
// cgroup namespace that this process is in.
const Root = "/"

const (
	// maxGroups bounds one search. A Kubernetes node with 250 pods has about 1500 groups.
	maxGroups = 16 << 10

	// maxDepth bounds how deep groups are nested. The kernel allows any depth.
	maxDepth = 32

	// maxKnown bounds what is remembered. Only ids of callers are.
	maxKnown = 1024
)

// Hierarchy is the tree of a host's control groups. A group's id is the inode number of its folder.
// The kernel uses no id twice and renames no group, so what was found once stays true.
type Hierarchy struct {
	dir      string
	complete bool

	searching sync.Mutex // held during a search, of which there is one at a time
	mu        sync.RWMutex
	known     map[uint64]string // "" for an id that was not found
}

// Host returns the hierarchy of this host.
func Host() *Hierarchy { return Open("/sys/fs/cgroup") }

// Open returns the hierarchy that is mounted at dir or, on hosts with both versions of control
// groups, below it.
func Open(dir string) *Hierarchy {
	h := &Hierarchy{known: make(map[uint64]string)}
	switch hybrid := filepath.Join(dir, "unified"); {
	case isCgroup2(dir):
		h.dir, h.complete = dir, true
	case isCgroup2(hybrid):
		h.dir = hybrid
	}
	return h
}

func isCgroup2(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && s.Type == unix.CGROUP2_SUPER_MAGIC
}

// Complete reports whether every process is in the group of this hierarchy that says what it
// belongs to. On hosts with version 1, engines may put containers into groups of version 1 alone.
func (h *Hierarchy) Complete() bool { return h.complete }

// Path returns the path of the group with this id, as "/system.slice/docker.service". It returns
// false for a group that was removed or that is outside this process's cgroup namespace.
//
// The first call for an id searches the tree, which takes about 10 ms on a host with 1000 groups.
func (h *Hierarchy) Path(id uint64) (string, bool) {
	if name, asked := h.remembered(id); asked {
		return name, name != ""
	}
	h.searching.Lock()
	defer h.searching.Unlock()
	if name, asked := h.remembered(id); asked { // by the search that this one has waited for
		return name, name != ""
	}
	if h.dir == "" {
		return "", false
	}
	name, err := search(h.dir, id)
	if err != nil {
		return "", false // the next call may succeed
	}
	h.remember(id, name)
	return name, name != ""
}

func (h *Hierarchy) remembered(id uint64) (name string, asked bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	name, asked = h.known[id]
	return name, asked
}

func (h *Hierarchy) remember(id uint64, name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.known) >= maxKnown {
		clear(h.known)
	}
	h.known[id] = name
}

// group is a folder that a search has still to look into.
type group struct {
	path  string
	depth int
}

// search returns the path of the group with this id below dir, or "" if there is none. It looks
// into containers last: most callers are engines.
func search(dir string, id uint64) (string, error) {
	var top unix.Stat_t
	if err := unix.Stat(dir, &top); err != nil {
		return "", err
	}
	if top.Ino == id {
		return Root, nil
	}
	next, later := []group{{Root, 0}}, []group(nil)
	for seen := 0; len(next)+len(later) > 0; {
		if len(next) == 0 {
			next, later = later, nil
		}
		g := next[0]
		next = next[1:]
		names, err := subgroups(filepath.Join(dir, g.path))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENODEV) {
			continue // it was removed meanwhile, or its owner hides what is in it
		} else if err != nil {
			return "", err
		}
		for _, name := range names {
			if seen++; seen > maxGroups {
				return "", nil
			}
			below := group{path.Join(g.path, name), g.depth + 1}
			var s unix.Stat_t
			if unix.Lstat(filepath.Join(dir, below.path), &s) != nil || s.Dev != top.Dev {
				continue
			}
			switch {
			case s.Ino == id:
				return below.path, nil
			case below.depth >= maxDepth:
			case isContainer(name):
				later = append(later, below)
			default:
				next = append(next, below)
			}
		}
	}
	return "", nil
}

// subgroups lists the folders in a folder.
func subgroups(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}
