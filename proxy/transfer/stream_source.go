package transfer

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
)

// streamSource is the source of a stream. It counts what is fetched, and shares bodies with other
// streams of the same name, unless the caller wants to be alone.
type streamSource struct {
	Source
	all *Transfers
	key broadcastKey
	own bool // shares nothing
}

func newStreamSource(s *Transfers, want Want) streamSource {
	return streamSource{want.Source, s, broadcastKey{want.Digest, want.By}, want.Alone}
}

// Open implements [Source].
func (s streamSource) Open(ctx context.Context, r Range, o Options) (Part, error) {
	if s.own || r.Start < 0 {
		return s.openAlone(ctx, r, o)
	}
	m := s.all.broadcasts.join(ctx, s, r, o)
	if m == nil {
		return s.openAlone(ctx, r, o)
	}
	select {
	case <-m.from.opened:
		part, err := m.part()
		if err != nil {
			_ = m.Close()
		}
		return part, err
	case <-ctx.Done():
		_ = m.Close()
		return Part{}, ctx.Err()
	}
}

// openAlone opens a body of the caller's own.
func (s streamSource) openAlone(ctx context.Context, r Range, o Options) (Part, error) {
	s.all.requests.Add(1)
	part, err := s.Source.Open(ctx, r, o)
	if err != nil {
		return Part{}, err
	}
	part.Body = &countingBody{part.Body, &s.all.fetched}
	return part, nil
}

// countingBody counts what is read.
type countingBody struct {
	io.ReadCloser
	count *atomic.Int64
}

// Read implements [io.Reader].
func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.count.Add(int64(n))
	return n, err
}

// broadcasts are those that are under way.
type broadcasts struct {
	held atomic.Int64 // bytes of chunks

	mu     sync.Mutex
	open   map[broadcastKey][]*broadcast
	closed bool // no further ones
	wait   sync.WaitGroup
}

// broadcastKey names a blob, and callers that may have what each other's source sends.
type broadcastKey struct {
	digest digest.Digest
	by     string
}

// join returns a subscriber to a broadcast of a range: one that is under way, or a new one. It is nil
// after close.
func (a *broadcasts) join(ctx context.Context, s streamSource, r Range, o Options) *subscriber {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	for _, b := range a.open[s.key] {
		if m := b.subscribe(ctx, s, r, o); m != nil {
			return m
		}
	}
	b, life := newBroadcast(ctx, s, r, o)
	m := &subscriber{from: b, ctx: ctx, at: r.Start}
	b.subscribers = append(b.subscribers, m)
	if a.open == nil {
		a.open = map[broadcastKey][]*broadcast{}
	}
	a.open[s.key] = append(a.open[s.key], b)
	a.wait.Go(func() {
		b.run(life)
		a.remove(b)
	})
	return m
}

func (a *broadcasts) remove(b *broadcast) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := b.source.key
	a.open[key] = slices.DeleteFunc(a.open[key], func(other *broadcast) bool { return other == b })
	if len(a.open[key]) == 0 {
		delete(a.open, key)
	}
}

// close ends all broadcasts and waits for them. Their streams go on alone.
func (a *broadcasts) close() {
	a.mu.Lock()
	a.closed = true
	for _, some := range a.open {
		for _, b := range some {
			b.mu.Lock()
			b.end()
			b.mu.Unlock()
		}
	}
	a.mu.Unlock()
	a.wait.Wait()
}
