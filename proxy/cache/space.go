package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// roomPatience is for how long a reservation waits for the eviction that it has asked for. A
	// blob that gets no room in that time passes through uncached, and the next one finds room.
	roomPatience = 5 * time.Millisecond

	// blockSize is what the smallest file takes on disk.
	blockSize = 4096

	// diskShare is how much of max_size everything may take on disk: content in whole blocks, and
	// records.
	diskShare = 1.08

	// manifestShare is how far manifests may exceed max_size. They are small, and without them
	// stored layers are of no use.
	manifestShare = 1.01
)

var (
	errNotCounted = errors.New("the cache has not been counted yet")
	errNoRoom     = errors.New("the cache has no room yet; the content that was used longest ago is being removed")
)

// space is the account of what the cache takes.
type space struct {
	mu sync.Mutex

	// counted says that used is not below what is stored. A reservation before that would be a
	// guess.
	counted bool
	exact   bool // it is what was counted, and what has changed since

	used, usedUntrusted         int64 // bytes of content
	rounding                    int64 // what content takes on disk beyond its bytes
	reserved, reservedUntrusted int64 // for content that is being fetched
	unwritten                   int64 // of what is reserved, not yet taken from the file system
	records, recordsUntrusted   int64 // blocks

	// What found no room since the last eviction. The next one makes room for all of it.
	wanted, wantedUntrusted int64

	arrivals []string // paths of what untrusted callers have had stored since the last eviction

	tally   *tally        // of the survey that runs
	changed chan struct{} // closed and replaced when an eviction has made room
}

// Counted reports whether what is stored has been counted.
func (d *Dir) Counted() bool {
	d.space.mu.Lock()
	defer d.space.mu.Unlock()
	return d.space.counted
}

// MaxSize returns how many bytes of content may be stored; 0 if there is no bound.
func (d *Dir) MaxSize() int64 { return d.limits.Load().MaxSize }

// onDisk returns what everything takes on disk, and will take when what is reserved is there.
func (s *space) onDisk() int64 {
	return s.used + s.rounding + s.reserved + s.records*blockSize
}

// rounded returns what a file of that size takes on disk beyond its bytes.
func rounded(size int64) int64 { return (blockSize - size%blockSize) % blockSize }

// diskLimit returns what everything may take on disk.
func (l Limits) diskLimit() int64 {
	return max(int64(diskShare*float64(l.MaxSize)), l.MaxSize+minRecordBlocks*blockSize)
}

// reservation is room for content that is being fetched. It must be committed or released. Its
// methods are for one goroutine at a time.
type reservation struct {
	dir       *Dir
	untrusted bool
	reserved  int64 // bytes
	written   int64 // of them, as far as the file system knows
	done      bool
}

// reserve sets room for size bytes (-1: unknown) aside, for an untrusted caller or not. It waits
// for no walk: if there is no room and an eviction does not make some at once, it returns an
// error, and the eviction goes on in the background.
func (d *Dir) reserve(ctx context.Context, size int64, untrusted bool) (*reservation, error) {
	r := &reservation{dir: d, untrusted: untrusted}
	return r, r.grow(ctx, max(size, 0))
}

// resume takes over what a partial blob at rest has on disk, as its reservation: size bytes, which
// count as stored until now. What is fetched next is set aside by grow.
func (d *Dir) resume(name string, size int64, untrusted bool) *reservation {
	s := &d.space
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(name, size, untrusted, -1)
	s.reserved += size
	if untrusted {
		s.reservedUntrusted += size
	}
	return &reservation{dir: d, untrusted: untrusted, reserved: size, written: size}
}

// grow sets n bytes more aside.
func (r *reservation) grow(ctx context.Context, n int64) error {
	d := r.dir
	if limit := d.limits.Load().MaxSize; limit > 0 && r.reserved+n > limit {
		return fmt.Errorf("%d bytes are more than the cache's max_size", r.reserved+n)
	}
	// Asking twice for the same room must not make twice as much.
	asked := false
	patience := time.NewTimer(roomPatience)
	defer patience.Stop()
	for {
		changed := d.space.watch()
		err := d.take(n, r.untrusted, !asked)
		if err == nil {
			r.reserved += n
			return nil
		}
		asked = true
		d.evictNow()
		if !errors.Is(err, errNoRoom) || !d.keeping.Load() {
			return err
		}
		select {
		case <-changed:
		case <-patience.C:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wrote records that n bytes of what is reserved are on disk, so that the file system's free space
// no longer includes them.
func (r *reservation) wrote(n int64) {
	n = min(n, r.reserved-r.written)
	r.written += n
	s := &r.dir.space
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unwritten -= n
}

// trust moves the reservation out of the share of untrusted callers.
func (r *reservation) trust() {
	if !r.untrusted {
		return
	}
	r.untrusted = false
	s := &r.dir.space
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reservedUntrusted -= r.reserved
}

// commit turns the reservation into stored content, which has that path and so many bytes: a blob,
// or a partial blob that is not being fetched any more, with what it takes on disk.
func (r *reservation) commit(name string, size int64) {
	if r.done {
		return
	}
	untrusted := r.untrusted
	r.release()
	r.dir.grew(name, size, untrusted)
}

// release gives the room back. A second call does nothing.
func (r *reservation) release() {
	if r.done {
		return
	}
	r.done = true
	s := &r.dir.space
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved -= r.reserved
	s.unwritten -= r.reserved - r.written
	if r.untrusted {
		s.reservedUntrusted -= r.reserved
	}
}

// watch returns a channel that is closed when an eviction has made room.
func (s *space) watch() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// announce tells those who wait for room to look again.
func (s *space) announce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// take reserves n bytes if there is room. With want it records what did not fit, so that the next
// eviction makes room for it.
func (d *Dir) take(n int64, untrusted, want bool) error {
	if n == 0 {
		return nil
	}
	free, err := d.free()
	if err != nil {
		return err
	}
	share, err := d.untrustedLimit()
	if err != nil {
		return err
	}
	l, s := *d.limits.Load(), &d.space
	if untrusted && n > share {
		return fmt.Errorf("%d bytes are more than the share of the cache that untrusted callers have", n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.counted && (l.MaxSize > 0 || untrusted) {
		return errNotCounted
	}
	if s.evictable(untrusted)+free-s.unwritten < n {
		return fmt.Errorf("%d bytes more would leave less than min_free on the disk, whatever is removed", n)
	}
	whole := free-s.unwritten < n || l.MaxSize > 0 && (s.used+s.reserved+n > l.MaxSize || s.onDisk()+n > l.diskLimit())
	own := untrusted && s.usedUntrusted+s.reservedUntrusted+n > share
	if whole || own {
		if want && untrusted {
			s.wantedUntrusted += n
		} else if want {
			s.wanted += n
		}
		return errNoRoom
	}
	s.reserved += n
	if err := d.promise(); err != nil {
		s.reserved -= n
		return err
	}
	s.unwritten += n
	if untrusted {
		s.reservedUntrusted += n
	}
	if d.isLow(l, free, 0) {
		d.evictNow()
	}
	return nil
}

// evictable returns how many bytes an eviction for a caller could remove. The caller holds mu.
func (s *space) evictable(untrusted bool) int64 {
	if untrusted {
		return s.usedUntrusted
	}
	return s.used
}

// grew records new content.
func (d *Dir) grew(name string, n int64, untrusted bool) {
	l, s := *d.limits.Load(), &d.space
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(name, n, untrusted, 1)
	if l.MaxSize > 0 && s.used+s.reserved > int64(highMark*float64(l.MaxSize)) {
		d.evictNow()
	}
	_ = d.promise() // the next reservation tries again
}

// shrank records that content is gone.
func (d *Dir) shrank(name string, n int64, untrusted bool) {
	s := &d.space
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(name, n, untrusted, -1)
}

// admitManifest reports whether a manifest of that size may be stored. It waits for nothing.
func (d *Dir) admitManifest(size int64, untrusted bool) error {
	share, err := d.untrustedLimit()
	if err != nil {
		return err
	}
	l, s := *d.limits.Load(), &d.space
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case untrusted && !s.counted:
		return errNotCounted
	case untrusted && s.usedUntrusted+s.reservedUntrusted+size > share:
		s.wantedUntrusted += size
	case l.MaxSize > 0 && s.counted && s.used+s.reserved+size > int64(manifestShare*float64(l.MaxSize)):
		s.wanted += size
	default:
		return nil
	}
	d.evictNow()
	return errNoRoom
}

// Used returns the bytes of content that are stored, as last counted and changed since.
func (d *Dir) Used() int64 {
	d.space.mu.Lock()
	defer d.space.mu.Unlock()
	return d.space.used
}

// free returns how many bytes may be taken of what the file system has left. Below zero it has
// less left than min_free.
func (d *Dir) free() (int64, error) {
	st, err := d.filesystem()
	if err != nil {
		return 0, err
	}
	l := d.limits.Load()
	keep := max(l.MinFree, int64(l.MinFreeShare*float64(st.Blocks)*float64(st.Bsize)))
	return int64(st.Bavail)*st.Bsize - keep, nil
}

func (d *Dir) filesystem() (st unix.Statfs_t, err error) {
	err = unix.Fstatfs(int(d.folder.Fd()), &st)
	return st, err
}
