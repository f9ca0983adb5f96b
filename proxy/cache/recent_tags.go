package cache

import (
	"container/list"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	recentTagBytes = 1 << 20 // of records of tags in memory

	// recordSettles is how old a record must be before it is held in memory. One that is replaced
	// sooner may look the same, in a file system whose clock has coarse steps.
	recordSettles = 2 * time.Second
)

// recentTags holds the records of tags that were used last in memory. A look at a file costs one
// system call, and to open, read and decode it costs about twenty.
type recentTags struct {
	mu     sync.Mutex
	byName map[string]*list.Element
	order  list.List // of *recentTag, the latest first
	bytes  int64
}

type recentTag struct {
	name string
	file fileVersion
	all  []Meaning
}

func (t *recentTag) size() int64 { return int64(len(t.name)) + t.file.size }

// fileVersion tells one version of a file from the next, which is another file of the same name or
// has been changed later.
type fileVersion struct {
	device, inode uint64
	size          int64
	changed       unix.Timespec
}

// versionOf returns the version of the file called name in the cache.
func (d *Dir) versionOf(name string) (fileVersion, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.folder.Fd()), name, &st, 0); err != nil {
		return fileVersion{}, err
	}
	return fileVersion{st.Dev, st.Ino, st.Size, st.Ctim}, nil
}

// settled reports whether the next version of the file will look different.
func (v fileVersion) settled() bool {
	return time.Since(time.Unix(v.changed.Unix())) > recordSettles
}

// get returns what is held of the record called name, if file is still its version.
func (c *recentTags) get(name string, file fileVersion) (all []Meaning, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byName[name]
	if e == nil {
		return nil, false
	}
	t := e.Value.(*recentTag)
	if t.file != file {
		c.remove(e)
		return nil, false
	}
	c.order.MoveToFront(e)
	return t.all, true
}

// put holds a record of which file is the version, or an earlier one.
func (c *recentTags) put(name string, file fileVersion, all []Meaning) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byName == nil {
		c.byName = map[string]*list.Element{}
	}
	if e := c.byName[name]; e != nil {
		c.remove(e)
	}
	t := &recentTag{name, file, all}
	c.byName[name] = c.order.PushFront(t)
	for c.bytes += t.size(); c.bytes > recentTagBytes; {
		c.remove(c.order.Back())
	}
}

func (c *recentTags) remove(e *list.Element) {
	t := c.order.Remove(e).(*recentTag)
	delete(c.byName, t.name)
	c.bytes -= t.size()
}
