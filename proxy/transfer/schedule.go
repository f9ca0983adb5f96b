package transfer

import (
	"time"

	"github.com/sidemirror/sidemirror/internal/extent"
)

const (
	// readAhead is what is fetched beyond a range whose reader reads on from where another ended.
	readAhead = 256 << 10

	// bridge is how long a gap between two ranges of one reader is fetched too, because that is
	// quicker than another request.
	bridge = 128 << 10

	// forRanges is over how many connections the ranges that readers wait for are fetched: an
	// engine that asks for several at once must not be slower than without sidemirror.
	forRanges = 8
)

// sizes say what is large enough for several connections. Tests have smaller ones.
type sizes struct {
	// many is how large a blob must be to be fetched over several connections.
	many int64

	// An added connection fetches piece bytes, and up to mostPiece if the round trip is long. At the
	// end of a blob pieces are shorter, so that all connections end together, and not shorter than
	// lastPiece.
	piece, mostPiece, lastPiece int64

	// nearby is how far behind a connection may be to be waited for.
	nearby int64
}

var defaultSizes = sizes{many: 16 << 20, piece: 8 << 20, mostPiece: 32 << 20, lastPiece: 2 << 20, nearby: 1 << 20}

// schedule opens connections for what the readers miss. t.mu is held.
func (t *transfer) schedule() {
	if t.err != nil || t.done || t.checking || t.paused || t.closing || !t.isOpen {
		return
	}
	for {
		e, want, ok := t.next()
		if !ok {
			return
		}
		c := t.newConn(e.Start, e.End, want)
		c.extra = t.busy() > 0
		t.attach(c, Part{})
	}
}

// busy returns how many connections bring bytes. t.mu is held.
func (t *transfer) busy() int {
	n := 0
	for _, c := range t.conns {
		if !c.stalled {
			n++
		}
	}
	return n
}

// next returns what to fetch next, and for whom. t.mu is held.
func (t *transfer) next() (e extent.Extent, want Want, ok bool) {
	if len(t.readers) == 0 && !t.finish {
		return e, want, false
	}
	if t.size < 0 {
		return extent.Extent{Start: t.have.RunFrom(0), End: -1}, t.anyWant(), t.busy() == 0
	}
	claimed := t.claimed()
	if !t.ranged {
		gap, missing := claimed.missing(extent.Extent{Start: 0, End: t.size})
		return gap, t.anyWant(), missing && t.busy() == 0
	}
	for _, r := range t.readers {
		if e, ok := t.urgent(r, claimed); ok {
			return e, r.want, true
		}
	}
	return t.ahead(claimed)
}

// anyWant returns in whose name to fetch what all want. t.mu is held.
func (t *transfer) anyWant() Want {
	if len(t.readers) > 0 {
		return t.readers[0].want
	}
	want := t.want
	if t.last != nil {
		want.Source = t.last
	}
	return want
}

// urgent returns what a reader waits for and no connection brings soon. t.mu is held.
func (t *transfer) urgent(r *Reader, claimed *claims) (extent.Extent, bool) {
	busy := t.busy()
	if busy > 0 && (r.want.Ahead || t.single || busy >= t.most(r)) {
		return extent.Extent{}, false
	}
	if r.isLong() {
		if r.waitsAt < 0 {
			return extent.Extent{}, false
		}
		t.detach(r.waitsAt, claimed)
		gap, ok := claimed.missing(extent.Extent{Start: r.waitsAt, End: min(r.waitsAt+1, t.size)})
		if !ok {
			return gap, false
		}
		return t.cut(r, gap.Start, claimed)
	}
	for _, e := range r.wants {
		if gap, ok := t.have.Missing(e); ok {
			t.detach(gap.Start, claimed)
		}
		if gap, ok := claimed.missing(e); ok {
			return gap, true
		}
	}
	return extent.Extent{}, false
}

// most returns how many connections there may be when one is opened for what a reader waits for: as
// many as without sidemirror, and those that make one reader quicker. t.mu is held.
func (t *transfer) most(r *Reader) int {
	if !r.isLong() {
		return max(forRanges, t.ramp.most)
	}
	long := 0
	for _, other := range t.readers {
		if other.isLong() {
			long++
		}
	}
	return max(t.ramp.allowed, min(long, forRanges))
}

// detach shortens a connection that will not reach off soon, so that another one can begin there.
// t.mu is held.
func (t *transfer) detach(off int64, claimed *claims) {
	if t.size <= t.all.sizes.many || !t.ranged {
		return
	}
	for _, c := range t.conns {
		if !c.stalled && c.at+t.all.sizes.nearby < off && off < c.end {
			claimed.coming.Remove(extent.Extent{Start: off, End: c.end})
			c.end = off
		}
	}
}

// ahead returns what to fetch ahead of the readers that want much. t.mu is held.
func (t *transfer) ahead(claimed *claims) (extent.Extent, Want, bool) {
	busy := t.busy()
	if busy > 0 && busy >= t.ramp.allowed {
		return extent.Extent{}, Want{}, false
	}
	if len(t.readers) == 0 {
		gap, ok := claimed.missing(extent.Extent{Start: 0, End: t.size})
		return gap, t.anyWant(), ok && busy == 0
	}
	for _, r := range t.readers {
		if !r.isLong() || r.want.Ahead && busy > 0 {
			continue
		}
		from := r.front()
		gap, ok := claimed.missing(extent.Extent{Start: from, End: r.wants[len(r.wants)-1].End})
		if !ok && busy > 0 {
			gap, ok = t.split(claimed)
		}
		if ok {
			e, ok := t.cut(r, gap.Start, claimed)
			return e, r.want, ok
		}
	}
	return extent.Extent{}, Want{}, false
}

// split takes from the connection that has most to bring what it would bring last. t.mu is held.
func (t *transfer) split(claimed *claims) (extent.Extent, bool) {
	var longest *conn
	for _, c := range t.conns {
		if !c.stalled && (longest == nil || c.end-c.at > longest.end-longest.at) {
			longest = c
		}
	}
	if longest == nil || longest.end-longest.at < 2*t.piece {
		return extent.Extent{}, false
	}
	e := extent.Extent{Start: longest.at + t.piece, End: longest.end}
	longest.end = e.Start
	claimed.coming.Remove(e)
	return e, true
}

// cut returns the piece that begins at off, for a long reader. t.mu is held.
func (t *transfer) cut(r *Reader, off int64, claimed *claims) (extent.Extent, bool) {
	gap, ok := claimed.missing(extent.Extent{Start: off, End: r.wants[len(r.wants)-1].End})
	if !ok || t.ramp.allowed <= 1 {
		return gap, ok
	}
	left := t.size - off
	piece := min(t.piece, max(2*left/int64(3*t.ramp.allowed), t.all.sizes.lastPiece))
	if gap.End = min(gap.End, gap.Start+piece); t.size-gap.End < t.all.sizes.lastPiece/2 {
		if rest, ok := claimed.missing(extent.Extent{Start: gap.Start, End: t.size}); ok && rest.End == t.size {
			gap.End = t.size // no request for a few bytes
		}
	}
	return gap, true
}

// measure looks, at intervals, whether more connections are of use and whether one is stalled.
func (t *transfer) measure() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	starting := false
	for _, c := range t.conns {
		starting = starting || !c.moving
		if t.ranged && t.size >= 0 && !c.stalled && now.Sub(c.latest) > stallTime && len(t.readers) > 0 {
			c.stalled = true
		}
	}
	if elapsed := now.Sub(t.since); elapsed >= t.ramp.interval() {
		if full := len(t.conns) >= t.ramp.allowed; full && !starting {
			t.ramp.measured(float64(t.moved) / elapsed.Seconds())
		}
		t.moved, t.since = 0, now
	}
	t.schedule()
	if len(t.conns) > 0 && t.tick != nil {
		t.tick.Reset(t.ramp.interval())
	} else {
		t.tick = nil
	}
}
