package transfer

import (
	"context"
	"io"
	"slices"
	"sync"
)

// spareSource is a source of which a part is open already: the transfer that it was opened for has
// found no room in the cache. It serves the next stream that asks as that transfer did.
type spareSource struct {
	Source

	mu   sync.Mutex
	part Part // its Body is nil if it is taken
}

// Open implements [Source].
func (s *spareSource) Open(ctx context.Context, r Range, o Options) (Part, error) {
	if part, ok := s.take(o); ok {
		stop := context.AfterFunc(ctx, part.close)
		part.Body = &endedBody{part.Body, func() { stop() }}
		return part, nil
	}
	return s.Source.Open(ctx, r, o)
}

// take returns the part, if these are the options of a first request.
func (s *spareSource) take(o Options) (Part, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	part := s.part
	if part.Body == nil || o.Resume || o.Separate || o.Only != "" || slices.Contains(o.Without, part.From) {
		return Part{}, false
	}
	s.part = Part{}
	return part, true
}

// close ends the part, if it is not taken.
func (s *spareSource) close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.part.close()
	s.part = Part{}
}

// takeSpare returns a source that has what the transfer has opened and cannot store, if that is what
// want asks for, and nil if not. One caller gets it, and none for which there may be room.
func (t *transfer) takeSpare(want Want) *spareSource {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.spare == nil || t.want.Ahead || want.Ahead || t.want.Untrusted != want.Untrusted ||
		t.want.By != want.By || !slices.Equal(t.want.Ranges, want.Ranges) {
		return nil
	}
	spare := t.spare
	t.spare = nil
	t.all.requests.Add(-1) // the stream counts it
	return spare
}

// endedBody is a body that something ends with when it is closed.
type endedBody struct {
	io.ReadCloser
	then func()
}

// Close implements [io.Closer].
func (b *endedBody) Close() error {
	defer b.then()
	return b.ReadCloser.Close()
}
