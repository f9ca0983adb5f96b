package inventory

import (
	"cmp"
	"context"
	"hash/maphash"
	"slices"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

// contents is all content of a cache, in 16 bytes for each file. Digests are hashed with a random
// seed, so that no registry can choose two that collide.
type contents struct {
	seed    maphash.Seed
	entries []entry  // by key
	listers []uint32 // how many images list each; nil if it is not counted
}

type entry struct {
	key  uint64
	size int64 // in the upper 63 bits; the lowest says that an image lists it
}

// readContents walks through all content.
func readContents(ctx context.Context, d *cache.Dir) (*contents, error) {
	c := &contents{seed: maphash.MakeSeed()}
	err := d.Walk(ctx, func(x cache.Content) error {
		c.entries = append(c.entries, entry{c.key(part{x.Manifest, x.Digest}), x.Size << 1})
		return nil
	})
	slices.SortFunc(c.entries, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	return c, err
}

func (c *contents) key(p part) uint64 {
	key := maphash.String(c.seed, string(p.digest))
	if p.manifest {
		key = ^key
	}
	return key
}

// count makes list count.
func (c *contents) count() { c.listers = make([]uint32, len(c.entries)) }

func (c *contents) index(p part) (int, bool) {
	return slices.BinarySearchFunc(c.entries, c.key(p), func(e entry, key uint64) int { return cmp.Compare(e.key, key) })
}

// find returns the size of content, if it is stored.
func (c *contents) find(p part) (size int64, stored bool) {
	i, ok := c.index(p)
	if !ok {
		return 0, false
	}
	return c.entries[i].size >> 1, true
}

// list records that an image lists a part.
func (c *contents) list(p part) {
	i, ok := c.index(p)
	if !ok {
		return
	}
	c.entries[i].size |= 1
	if c.listers != nil {
		c.listers[i]++
	}
}

// listed reports whether an image lists a part.
func (c *contents) listed(p part) bool {
	i, ok := c.index(p)
	return ok && c.entries[i].size&1 != 0
}

// unlist records that an image that lists a part goes, and reports whether it is the last one.
func (c *contents) unlist(p part) bool {
	i, ok := c.index(p)
	if !ok {
		return false // it has come since, and so may images that list it
	}
	c.listers[i]--
	return c.listers[i] == 0
}

// sums returns the bytes of all content, and of what no image lists.
func (c *contents) sums() (all, loose int64) {
	for _, e := range c.entries {
		all += e.size >> 1
		if e.size&1 == 0 {
			loose += e.size >> 1
		}
	}
	return all, loose
}

// onDisk returns a function that looks for content on disk each time.
func onDisk(d *cache.Dir) func(part) (int64, bool) {
	return func(p part) (int64, bool) {
		c, err := d.Stored(p.digest, p.manifest)
		return c.Size, err == nil
	}
}
