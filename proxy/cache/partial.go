package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/extent"
)

// claimStep is how many bytes are written before the list says so: what a killed process loses.
const claimStep = 1 << 20

// ErrStorage says that content could not be stored: the disk is full, broken or cannot be written.
// It can still be had from its source.
var ErrStorage = errors.New("the cache cannot store it")

// Partial is a blob that is not whole: a sparse file, and the list of the extents that are present.
// It belongs to one source, because until the blob is verified no caller of another source may have
// its bytes. Close leaves it on disk for later. It is safe for concurrent use.
type Partial struct {
	// Size is the blob's size in bytes; -1 if it is unknown.
	Size int64

	dir    *Dir
	digest digest.Digest
	name   string // of the data, without its suffix
	file   *os.File
	leave  func()

	booking   sync.Mutex // of room and reserved
	room      *reservation
	allocates bool // the file system sets room aside

	mu        sync.Mutex
	listed    bool     // there is a list on disk
	list      *os.File // nil: this process has claimed nothing yet
	lines     int
	present   extent.Set
	fresh     extent.Set // written, and not yet claimed by the list
	reserved  extent.Set
	broken    bool // the disk has failed
	untrusted bool
}

// partialPath returns where the partial blob of a source is, without suffix.
func partialPath(dgst digest.Digest, source string) string {
	sum := sha256.Sum256([]byte(source))
	return fmt.Sprintf("partial/%s-%s-%s", dgst.Algorithm(), dgst.Encoded(), hex.EncodeToString(sum[:8]))
}

// FindPartial opens what is present of a blob from a source; fs.ErrNotExist if nothing is.
func (d *Dir) FindPartial(dgst digest.Digest, source string, untrusted bool) (*Partial, error) {
	p := d.newPartial(dgst, source)
	if err := p.load(); err != nil {
		p.release()
		return nil, err
	}
	if !untrusted {
		p.Trust()
	}
	return p, nil
}

// CreatePartial makes an empty partial blob, in place of one that may be there. The error is
// ErrStorage if that is impossible, also because another process has it open.
func (d *Dir) CreatePartial(dgst digest.Digest, source string, size int64, untrusted bool) (*Partial, error) {
	p, err := d.createEmpty(dgst, source, size, untrusted)
	if !errors.Is(err, fs.ErrExist) {
		return p, err
	}
	old, err := d.FindPartial(dgst, source, untrusted)
	switch {
	case err == nil:
		old.Discard()
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, fmt.Errorf("%w: another process fetches it", ErrStorage)
	}
	return d.createEmpty(dgst, source, size, untrusted)
}

// createEmpty makes an empty partial blob. The error wraps fs.ErrExist if there is one.
func (d *Dir) createEmpty(dgst digest.Digest, source string, size int64, untrusted bool) (*Partial, error) {
	p := d.newPartial(dgst, source)
	p.Size, p.untrusted = size, untrusted
	if err := p.create(); err != nil {
		if p.room != nil {
			p.room.release()
		}
		p.release()
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return p, nil
}

func (d *Dir) newPartial(dgst digest.Digest, source string) *Partial {
	d.mu.Lock()
	d.reading[dgst]++ // so that it is not evicted
	d.mu.Unlock()
	return &Partial{
		dir: d, digest: dgst, name: partialPath(dgst, source),
		leave: sync.OnceFunc(func() { d.leave(dgst) }),
	}
}

// rewriteList writes the list anew, as short as it can be. p.mu is held, or p not shared yet.
func (p *Partial) rewriteList() error {
	temp := p.name + partialList + ".new"
	f, err := p.dir.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, fileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(formatList(p.Size, bootID(), &p.present, false))
	if err == nil {
		err = p.dir.root.Rename(temp, p.name+partialList)
	}
	if err != nil {
		f.Close()
		_ = p.dir.root.Remove(temp)
		return err
	}
	if p.list != nil {
		p.list.Close()
	}
	p.list, p.lines, p.listed = f, p.present.Count(), true
	p.fresh = extent.Set{}
	return nil
}

// Present returns which bytes are present.
func (p *Partial) Present() extent.Set {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.present.Clone()
}

// Takes reports whether the partial blob can be made of n extents more. A few are left for the
// connections that fetch the gaps between them.
func (p *Partial) Takes(n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.present.Count()+n <= maxExtents-spareExtents
}

// WriteAt stores bytes. An error is ErrStorage.
func (p *Partial) WriteAt(ctx context.Context, b []byte, off int64) error {
	e := extent.Extent{Start: off, End: off + int64(len(b))}
	if err := p.ready(ctx, e); err != nil {
		return err
	}
	_, err := p.file.WriteAt(b, off)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.broken = p.broken || !isFull(err)
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	p.present.Add(e)
	p.fresh.Add(e)
	whole := p.present.Bytes() == p.Size // it is verified and stored next
	if p.fresh.Bytes() >= claimStep && !whole {
		p.claim()
	}
	return nil
}

// isFull reports whether a file system had no room for what was written.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// claim appends to the list what is written since the last time. A list that cannot be written
// claims less than there is. p.mu is held.
func (p *Partial) claim() {
	p.lines += p.fresh.Count()
	if p.list == nil || p.lines > 2*p.present.Count()+1024 {
		if p.rewriteList() == nil || p.list == nil {
			return
		}
	}
	if _, err := p.list.Write(appendExtents(nil, &p.fresh)); err == nil {
		p.fresh = extent.Set{}
	}
}

// ReadAt implements [io.ReaderAt], for bytes that are present.
func (p *Partial) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.file.ReadAt(b, off)
	if n < len(b) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.broken = true
	}
	return n, err
}

// Open returns the data once more, with an offset of its own. It may be committed meanwhile.
func (p *Partial) Open() (*os.File, error) {
	f, err := p.dir.open(p.name + partialData)
	if err != nil {
		f, err = p.dir.open(contentPath("blobs", p.digest))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return f, nil
}

// Trust makes it the trusted callers' own.
func (p *Partial) Trust() {
	p.booking.Lock()
	defer p.booking.Unlock()
	if p.untrusted && p.file != nil && p.file.Chmod(fileMode) == nil {
		p.untrusted = false
		p.room.trust()
	}
}

// Sync brings what is present to the disk, so that it counts also after the machine went down.
func (p *Partial) Sync() error {
	p.mu.Lock()
	p.claim()
	list := p.list
	lines := p.lines
	p.mu.Unlock()
	if list == nil {
		return nil // this process has claimed nothing
	}
	if err := unix.Fdatasync(int(p.file.Fd())); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if list != p.list || lines != p.lines {
		return nil // more was written meanwhile, which is not synced
	}
	if _, err := list.WriteString(syncedLine); err != nil {
		return err
	}
	return unix.Fdatasync(int(list.Fd()))
}

// Commit makes the file a stored blob. The caller has verified it. The partial blob is closed.
func (p *Partial) Commit() error {
	defer p.lock()()
	err := p.dir.commit(p.file, p.name+partialData, contentPath("blobs", p.digest))
	if err != nil {
		p.discard()
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	if p.listed {
		_ = p.dir.root.Remove(p.name + partialList)
	}
	p.room.commit(contentPath("blobs", p.digest), p.present.Bytes())
	p.release()
	return nil
}

// Discard removes it.
func (p *Partial) Discard() {
	defer p.lock()()
	p.discard()
}

// lock waits until no room is being made, and returns what unlocks p.
func (p *Partial) lock() (unlock func()) {
	p.booking.Lock()
	p.mu.Lock()
	return func() {
		p.mu.Unlock()
		p.booking.Unlock()
	}
}

func (p *Partial) discard() {
	if p.file != nil {
		p.remove()
	}
	if p.room != nil {
		p.room.release()
	}
	p.release()
}

// Close leaves it on disk, or removes it if nothing is present or the disk has failed.
func (p *Partial) Close() error {
	defer p.lock()()
	if p.file == nil {
		return nil
	}
	if p.present.Count() == 0 || p.Size < 0 || p.broken {
		p.discard()
		return nil
	}
	if p.fresh.Count() > 0 {
		p.claim()
	}
	p.giveBack()
	if now, err := p.dir.stat(p.name + partialData); err == nil {
		p.room.commit(p.name+partialData, now.allocated)
	} else {
		p.room.release()
	}
	p.release()
	return nil
}

func (p *Partial) release() {
	if p.file != nil {
		p.file.Close()
	}
	if p.list != nil {
		p.list.Close()
	}
	p.file, p.list = nil, nil
	p.leave()
}
