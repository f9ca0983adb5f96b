package transfer

import (
	"context"
	"fmt"
	"io"
	"slices"
)

// subscriber reads a broadcast. It implements [io.ReadCloser].
type subscriber struct {
	from *broadcast
	ctx  context.Context
	at   int64
	own  io.ReadCloser // the rest, after it fell behind

	again bool // it fell behind another broadcast before
}

// part returns what the stream has opened.
func (m *subscriber) part() (Part, error) {
	b := m.from
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.part.Body == nil {
		return b.part, b.err
	}
	part := b.part
	part.Start, part.Body = m.at, m
	return part, nil
}

// Read implements [io.Reader].
func (m *subscriber) Read(p []byte) (int, error) {
	for m.own == nil && len(p) > 0 {
		n, progress, err := m.next(p)
		if n > 0 || err != nil {
			return n, err
		}
		if progress == nil {
			if err := m.leave(); err != nil {
				return 0, err
			}
			break
		}
		select {
		case <-progress:
		case <-m.ctx.Done():
			return 0, m.ctx.Err()
		}
	}
	if m.own == nil {
		return 0, nil
	}
	return m.own.Read(p)
}

// next copies what is there of the bytes at the subscriber's place. If there is nothing yet, it
// returns a channel that is closed when there is; nil if the bytes are gone.
func (m *subscriber) next(p []byte) (n int, progress <-chan struct{}, err error) {
	b := m.from
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case m.at < b.start:
		return 0, nil, nil
	case m.at >= b.stop && b.err != nil:
		return 0, nil, b.err
	case m.at >= b.stop:
		return 0, b.progress, nil
	}
	for n < len(p) && m.at < b.stop {
		off := m.at - b.start
		more := copy(p[n:], b.chunks[off/chunkSize][off%chunkSize:])
		n += more
		m.at += int64(more)
	}
	b.lead = max(b.lead, m.at)
	b.room.Signal()
	return n, nil, nil
}

// leave leaves a broadcast that the subscriber cannot follow. It asks for the rest, the first time
// together with others that are as slow.
func (m *subscriber) leave() error {
	b := m.from
	m.unsubscribe()
	open := b.source.Open
	if m.again {
		open = b.source.openAlone
	}
	part, err := open(m.ctx, Range{m.at, b.asked.End}, Options{Only: b.part.From, Resume: true})
	if err != nil {
		return err
	}
	if joined, ok := part.Body.(*subscriber); ok {
		joined.again = true
	}
	if part.Start != m.at || part.Total != b.part.Total {
		_ = part.Body.Close()
		return fmt.Errorf("%w: the upstream did not send the rest", io.ErrUnexpectedEOF)
	}
	m.own = part.Body
	return nil
}

// Close implements [io.Closer].
func (m *subscriber) Close() error {
	m.unsubscribe()
	if m.own != nil {
		return m.own.Close()
	}
	return nil
}

// unsubscribe leaves the broadcast. It ends when the last one has left.
func (m *subscriber) unsubscribe() {
	b := m.from
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subscribers = slices.DeleteFunc(b.subscribers, func(other *subscriber) bool { return other == m })
	if len(b.subscribers) == 0 {
		b.end()
		b.trim()
	}
}
