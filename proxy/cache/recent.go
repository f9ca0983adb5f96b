package cache

import (
	"container/list"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	recentBytes = 8 << 20 // of manifests in memory

	// recentCheck is for how long a manifest in memory is served without a look at
	// the disk, from which another process may have removed it.
	recentCheck = time.Second
)

// recent holds the manifests that were used last in memory, by the repository they were asked for
// in.
type recent struct {
	mu    sync.Mutex
	byKey map[recentKey]*list.Element
	order list.List // of *recentEntry, the latest first
	bytes int

	byDigest map[digest.Digest]*recentEntry // the first of those of the same digest
}

type recentKey struct {
	repository Repository
	digest     digest.Digest
}

type recentEntry struct {
	key     recentKey
	m       *Manifest
	checked time.Time // when it was last seen on disk

	// The others of the same digest, in other repositories.
	previous, next *recentEntry
}

// get returns a manifest, nil if it is not in memory, and whether the caller must check that it is
// still on disk.
func (c *recent) get(r Repository, dgst digest.Digest) (m *Manifest, due bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[recentKey{r, dgst}]
	if e == nil {
		return nil, false
	}
	c.order.MoveToFront(e)
	entry := e.Value.(*recentEntry)
	if now := time.Now(); now.Sub(entry.checked) > recentCheck {
		entry.checked, due = now, true
	}
	return entry.m, due
}

func (c *recent) put(r Repository, m *Manifest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := recentKey{r, m.Digest}
	if c.byKey == nil {
		c.byKey, c.byDigest = map[recentKey]*list.Element{}, map[digest.Digest]*recentEntry{}
	}
	if e := c.byKey[key]; e != nil {
		c.order.MoveToFront(e)
		return
	}
	entry := &recentEntry{key: key, m: m, checked: time.Now(), next: c.byDigest[key.digest]}
	if entry.next != nil {
		entry.next.previous = entry
	}
	c.byDigest[key.digest] = entry
	c.byKey[key] = c.order.PushFront(entry)
	for c.bytes += len(m.Body); c.bytes > recentBytes; {
		c.remove(c.order.Back())
	}
}

func (c *recent) remove(e *list.Element) {
	entry := c.order.Remove(e).(*recentEntry)
	delete(c.byKey, entry.key)
	c.bytes -= len(entry.m.Body)
	if entry.next != nil {
		entry.next.previous = entry.previous
	}
	switch {
	case entry.previous != nil:
		entry.previous.next = entry.next
	case entry.next != nil:
		c.byDigest[entry.key.digest] = entry.next
	default:
		delete(c.byDigest, entry.key.digest)
	}
}

// drop forgets a manifest that is gone from the disk, or has other holdings, in all repositories.
func (c *recent) drop(dgst digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for entry := c.byDigest[dgst]; entry != nil; entry = c.byDigest[dgst] {
		c.remove(c.byKey[entry.key])
	}
}
