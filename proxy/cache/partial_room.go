package cache

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/extent"
)

// growth is how much room is made at a time for what was not reserved.
const growth = 256 << 10

// MakeRoom reports as an error that the cache has no room for a part of a blob. The eviction makes
// some for what is fetched later.
func (d *Dir) MakeRoom(ctx context.Context, untrusted bool) error {
	r, err := d.reserve(ctx, d.step(), untrusted)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	r.release()
	return nil
}

// Full reports whether nothing more can be stored: even if all that is stored were removed, the disk
// would have less than min_free available.
func (d *Dir) Full() bool {
	free, err := d.free()
	if err != nil {
		return false
	}
	s := &d.space
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.evictable(false)+free-s.unwritten < blockSize
}

// Reserve makes sure that the bytes of e can be stored, so that a full disk shows before they come.
func (p *Partial) Reserve(ctx context.Context, e extent.Extent) error {
	p.booking.Lock()
	defer p.booking.Unlock()
	if p.room.done {
		return nil // it is stored, or nothing more is
	}
	missing := e.Len()
	for at := e.Start; at < e.End; {
		run := min(p.reserved.RunFrom(at), e.End)
		missing -= run - at
		if at = run; at < e.End {
			gap, _ := p.reserved.Missing(extent.Extent{Start: at, End: e.End})
			at = gap.End
		}
	}
	if missing <= 0 {
		return nil
	}
	if err := p.room.grow(ctx, missing); err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	err := unix.Fallocate(int(p.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, e.Start, e.Len())
	p.allocates = err == nil
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("%w: reserving %d bytes: %w", ErrStorage, missing, err)
	}
	if p.allocates {
		p.room.wrote(missing)
	}
	p.reserved.Add(e)
	return nil
}

// ready makes sure that there is room for e, which may not be reserved.
func (p *Partial) ready(ctx context.Context, e extent.Extent) error {
	p.booking.Lock()
	there := p.reserved.Covers(e)
	if there && !p.allocates {
		p.room.wrote(e.Len())
	}
	p.booking.Unlock()
	if there {
		return nil
	}
	return p.Reserve(ctx, p.step(e))
}

// step returns how much room is made at a time.
func (d *Dir) step() int64 {
	step := int64(growth)
	if limit := d.limits.Load().MaxSize; limit > 0 {
		step = min(step, limit/32)
	}
	return step
}

// step returns what to reserve for e: a little ahead of it.
func (p *Partial) step(e extent.Extent) extent.Extent {
	e.End = max(e.End, e.Start+p.dir.step())
	if p.Size >= 0 {
		e.End = min(e.End, max(p.Size, e.Start))
	}
	return e
}

// giveBack frees what was reserved on disk and is not written.
func (p *Partial) giveBack() {
	for _, e := range p.present.All() {
		p.reserved.Remove(e)
	}
	for _, e := range p.reserved.All() {
		_ = unix.Fallocate(int(p.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, e.Start, e.Len())
	}
}
