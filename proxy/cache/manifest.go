package cache

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

const (
	recentBytes = 8 << 20 // of manifests in memory

	// recentCheck is for how long a manifest in memory is served without a look at
	// the disk, from which another process may have removed it.
	recentCheck = time.Second
)

// Manifest is a stored manifest, to the byte. It is shared and must not be changed.
type Manifest struct {
	Digest   digest.Digest
	Body     []byte
	Holdings []Holding // how it is known that the repository holds it, the latest first
}

// Manifest returns a manifest that the repository is known to hold; fs.ErrNotExist if it is
// not stored, or not known to be held there. The caller is untrusted or not.
func (d *Dir) Manifest(r Repository, dgst digest.Digest, untrusted bool) (*Manifest, error) {
	m, due := d.recent.get(r, dgst)
	if due && !d.stillThere(r, dgst, untrusted) {
		d.recent.drop(map[digest.Digest]bool{dgst: true})
	} else if m != nil {
		return m, nil
	}
	held := d.holdings(r, KindManifest, dgst)
	if len(held) == 0 {
		return nil, fs.ErrNotExist
	}
	name := contentPath("manifests", dgst)
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(f, oci.MaxManifest+1))
	if err != nil {
		return nil, err
	}
	if dgst.Algorithm().FromBytes(body) != dgst {
		return nil, fmt.Errorf("%w: the stored bytes of %s no longer match the digest", fs.ErrNotExist, dgst)
	}
	d.touch(name, info.ModTime())
	if !untrusted {
		d.promote(name, info)
	}
	m = &Manifest{dgst, body, held}
	d.recent.put(r, m)
	return m, nil
}

// stillThere reports whether a manifest that is in memory is on disk too, and records there that it
// was used.
func (d *Dir) stillThere(r Repository, dgst digest.Digest, untrusted bool) bool {
	name := contentPath("manifests", dgst)
	info, err := d.root.Stat(name)
	if err == nil {
		d.touch(name, info.ModTime())
		if !untrusted {
			d.promote(name, info)
		}
		_, err = d.root.Stat(holdingPath(r, KindManifest, dgst))
	}
	// A disk that fails does not say that the manifest is gone.
	return !errors.Is(err, fs.ErrNotExist)
}

// PutManifest stores a manifest, which the caller has verified, and records that the
// repository holds it. It records nothing of what the manifest lists: anyone who may push a
// manifest may list in it the digest of another repository's layer.
func (d *Dir) PutManifest(r Repository, dgst digest.Digest, body []byte, h Holding) error {
	name := contentPath("manifests", dgst)
	info, err := d.root.Stat(name)
	switch {
	case err == nil && !h.Untrusted:
		d.promote(name, info)
	case errors.Is(err, fs.ErrNotExist):
		if h.Untrusted {
			if err := d.reserveShare(context.Background(), int64(len(body))); err != nil {
				return err
			}
		}
		if err := d.writeDurably(name, body, h.Untrusted); err != nil {
			return err
		}
		d.grew(int64(len(body)), h.Untrusted)
	}
	if err := d.HoldManifest(r, dgst, h); err != nil {
		return err
	}
	d.recent.put(r, &Manifest{dgst, body, d.holdings(r, KindManifest, dgst)})
	return nil
}

func (d *Dir) writeDurably(name string, body []byte, untrusted bool) (err error) {
	temp := d.partialName("manifest")
	f, err := d.createPartial(temp, os.O_WRONLY)
	if err != nil {
		return err
	}
	defer func() {
		f.Close() // commit has synced it
		if err != nil {
			_ = d.root.Remove(temp)
		}
	}()
	if _, err = f.Write(body); err != nil {
		return err
	}
	if untrusted {
		if err = f.Chmod(untrustedMode); err != nil {
			return err
		}
	}
	return d.commit(f, temp, name)
}

// recent holds the manifests that were used last in memory, by the repository they were asked for
// in.
type recent struct {
	mu    sync.Mutex
	byKey map[recentKey]*list.Element
	order list.List // of *recentEntry, the latest first
	bytes int
}

type recentKey struct {
	repository Repository
	digest     digest.Digest
}

type recentEntry struct {
	key     recentKey
	m       *Manifest
	checked time.Time // when it was last seen on disk
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
		c.byKey = map[recentKey]*list.Element{}
	}
	if e := c.byKey[key]; e != nil {
		c.order.MoveToFront(e)
		return
	}
	c.byKey[key] = c.order.PushFront(&recentEntry{key, m, time.Now()})
	for c.bytes += len(m.Body); c.bytes > recentBytes; {
		c.remove(c.order.Back())
	}
}

func (c *recent) remove(e *list.Element) {
	entry := c.order.Remove(e).(*recentEntry)
	delete(c.byKey, entry.key)
	c.bytes -= len(entry.m.Body)
}

// drop forgets manifests that are gone from the disk.
func (c *recent) drop(gone map[digest.Digest]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.order.Front(); e != nil; {
		next := e.Next()
		if gone[e.Value.(*recentEntry).key.digest] {
			c.remove(e)
		}
		e = next
	}
}
