package transfer

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"
)

// A broadcast is one body that several streams read at about the same time: without a cache, clients
// that pull the same image together cost its upstream one connection. The fastest subscriber sets
// its pace. One that falls too far behind asks for the rest itself.
const (
	chunkSize = 32 << 10

	// broadcastAhead is how far a broadcast reads ahead of its fastest subscriber.
	broadcastAhead = chunkSize

	// broadcastWindow is how far the slowest subscriber may be behind what was read. A stream can
	// join within the newer half of it.
	broadcastWindow = 4 << 20

	// slowPatience is for how long a broadcast waits for subscribers that are about to lose what they
	// need: many at once take turns on the processors. Each of them makes it wait once at most.
	slowPatience = 100 * time.Millisecond

	// maxBroadcasting bounds what all broadcasts together hold for subscribers that are behind, and
	// for those that may join.
	maxBroadcasting = 32 << 20
)

// broadcast is a body and the part of it that was read last.
type broadcast struct {
	source  streamSource
	asked   Range
	options Options
	cancel  context.CancelFunc
	opened  chan struct{} // closed when part, or err, is known

	mu          sync.Mutex
	part        Part
	chunks      [][]byte // all are full but the last
	start, stop int64    // of what is in them
	reading     bool     // bytes may be written into the last one
	err         error    // after stop
	ended       bool     // no stream can join
	subscribers []*subscriber
	lead        int64         // where the fastest one is
	room        *sync.Cond    // a subscriber has read on, or ended or slow has changed
	slow        *time.Timer   // runs while the slowest one is waited for
	late        bool          // it has been waited for
	progress    chan struct{} // closed and replaced when stop or err has changed
}

func newBroadcast(ctx context.Context, s streamSource, r Range, o Options) (*broadcast, context.Context) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b := &broadcast{
		source: s, asked: r, options: o, cancel: cancel, opened: make(chan struct{}),
		lead: r.Start, progress: make(chan struct{}),
	}
	b.room = sync.NewCond(&b.mu)
	return b, life
}

// subscribe lets a stream join if the bytes that it wants are held, or will be. It returns nil if they
// are not.
func (b *broadcast) subscribe(ctx context.Context, s streamSource, r Range, o Options) *subscriber {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended || !b.serves(s, r, o) {
		return nil
	}
	m := &subscriber{from: b, ctx: ctx, at: r.Start}
	b.subscribers = append(b.subscribers, m)
	b.lead = max(b.lead, m.at)
	return m
}

// serves reports whether a broadcast has, or will have, what a stream wants. b.mu is held.
func (b *broadcast) serves(s streamSource, r Range, o Options) bool {
	if b.part.Body == nil { // it is being opened
		return o.Only == b.options.Only && o.Resume == b.options.Resume && slices.Equal(o.Without, b.options.Without) &&
			slices.Equal(s.Upstreams(), b.source.Upstreams()) && r.End == b.asked.End &&
			r.Start >= b.asked.Start && r.Start-b.asked.Start <= broadcastWindow/4
	}
	from := b.part.From
	return (o.Only == "" || o.Only == from) && !slices.Contains(o.Without, from) && slices.Contains(s.Upstreams(), from) &&
		b.endsAs(r) && r.Start >= b.start && r.Start <= b.stop && b.stop-r.Start <= broadcastWindow/2
}

// endsAs reports whether a broadcast ends where a range does. b.mu is held.
func (b *broadcast) endsAs(r Range) bool {
	toEnd := func(r Range) bool { return r.End < 0 || r.End == b.part.Total }
	return r.End == b.asked.End || toEnd(r) && toEnd(b.asked)
}

// run opens the body and reads it until it ends, or all subscribers have left.
func (b *broadcast) run(ctx context.Context) {
	defer b.cancel()
	part, err := b.source.openAlone(ctx, b.asked, b.options)
	b.mu.Lock()
	b.part, b.err = part, err
	b.start, b.stop = part.Start, part.Start
	if part.Start != b.asked.Start { // an upstream may send more than was asked for
		for _, m := range b.subscribers {
			m.at = part.Start
		}
		b.lead = part.Start
	}
	b.ended = b.ended || err != nil
	close(b.opened)
	b.mu.Unlock()
	if err != nil {
		return
	}
	for space := b.space(); space != nil; space = b.space() {
		b.add(part.Body.Read(space))
	}
	_ = part.Body.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.ended {
		b.room.Wait() // while one is reading, others may join it
	}
}

// space waits until the fastest subscriber needs more, and returns where the next bytes go. It is nil
// if no more are read.
func (b *broadcast) space() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.ended && b.err == nil && (b.stop-b.lead >= broadcastAhead || b.awaitsSlowest()) {
		b.room.Wait()
	}
	if b.slow != nil {
		b.slow.Stop()
		b.slow = nil
	}
	b.trim()
	b.late = false
	if b.ended && b.err == nil {
		b.err = errClosed
		b.announce()
	}
	if b.err != nil {
		return nil
	}
	last := len(b.chunks) - 1
	if last < 0 || len(b.chunks[last]) == chunkSize {
		b.chunks = append(b.chunks, chunkPool.Get().(*[chunkSize]byte)[:0])
		b.source.all.broadcasts.held.Add(chunkSize)
		last++
	}
	b.reading = true
	return b.chunks[last][len(b.chunks[last]):chunkSize]
}

// awaitsSlowest reports whether the next chunk must wait for the slowest subscriber. b.mu is held.
func (b *broadcast) awaitsSlowest() bool {
	if b.late || b.stop-b.slowest() < broadcastWindow || b.isCrowded() {
		return false
	}
	if b.slow == nil {
		b.slow = time.AfterFunc(slowPatience, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.late = true
			b.room.Signal()
		})
	}
	return true
}

// slowest returns where the slowest subscriber is of those that have lost nothing. b.mu is held.
func (b *broadcast) slowest() int64 {
	at := b.stop
	for _, m := range b.subscribers {
		if m.at >= b.start {
			at = min(at, m.at)
		}
	}
	return at
}

// isCrowded reports whether all broadcasts together hold as much as they may.
func (b *broadcast) isCrowded() bool { return b.source.all.broadcasts.held.Load() > maxBroadcasting }

var chunkPool = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// add enters n bytes that were read into the space, and the error after them.
func (b *broadcast) add(n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := len(b.chunks) - 1
	b.chunks[last] = b.chunks[last][:len(b.chunks[last])+n]
	b.stop += int64(n)
	b.reading = false
	b.err, b.ended = err, b.ended || err != nil && !errors.Is(err, io.EOF)
	b.announce()
}

// announce wakes the subscribers that wait. b.mu is held.
func (b *broadcast) announce() {
	close(b.progress)
	b.progress = make(chan struct{})
}

// trim drops what no subscriber needs, and what those need that are too far behind. b.mu is held.
func (b *broadcast) trim() {
	needed, window := b.slowest(), int64(broadcastWindow)
	switch {
	case len(b.subscribers) == 0:
	case b.isCrowded():
		window = broadcastAhead
	case b.late:
		window /= 2 // those that are left need not be waited for soon
	case b.stop-b.part.Start <= broadcastWindow/2 && !b.ended:
		needed = b.part.Start // another stream may join from the start
	}
	b.drop(max(needed, b.stop-window))
}

// drop drops the chunks that end before to. b.mu is held.
func (b *broadcast) drop(to int64) {
	n := 0
	for _, c := range b.chunks {
		if b.start+int64(len(c)) > to || b.reading && n == len(b.chunks)-1 {
			break
		}
		b.start += int64(len(c))
		chunkPool.Put((*[chunkSize]byte)(c[:chunkSize]))
		b.source.all.broadcasts.held.Add(-chunkSize)
		n++
	}
	b.chunks = slices.Delete(b.chunks, 0, n)
}

// end ends the broadcast. b.mu is held.
func (b *broadcast) end() {
	b.ended = true
	b.cancel()
	b.room.Signal()
}
