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
	entries []entry // by key
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

func (c *contents) entry(p part) *entry {
	i, ok := slices.BinarySearchFunc(c.entries, c.key(p), func(e entry, key uint64) int { return cmp.Compare(e.key, key) })
	if !ok {
		return nil
	}
	return &c.entries[i]
}

// find returns the size of content, if it is stored.
func (c *contents) find(p part) (size int64, stored bool) {
	e := c.entry(p)
	if e == nil {
		return 0, false
	}
	return e.size >> 1, true
}

// list records that an image lists a part.
func (c *contents) list(p part) {
	if e := c.entry(p); e != nil {
		e.size |= 1
	}
}

// listed reports whether an image lists a part.
func (c *contents) listed(p part) bool {
	e := c.entry(p)
	return e != nil && e.size&1 != 0
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
