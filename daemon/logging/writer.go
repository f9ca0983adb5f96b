package logging

import (
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

const (
	// maxPending is how many bytes of lines wait for a slow reader of the log, before the next
	// line waits too.
	maxPending = 1 << 20

	// gather is how long lines gather after those before them were written. One that comes later
	// is written at once.
	gather = 2 * time.Millisecond
)

// Writer writes lines to another writer, in order. Those of the access log it writes in a goroutine
// of its own, so that a request does not wait for its line and lines of many requests go out
// together. Nothing is lost: a line waits if too many do, and Close returns when all are out.
type Writer struct {
	to       io.Writer
	terminal bool
	writing  sync.Mutex // held while to is written to, and taken before mu

	mu      sync.Mutex
	pending []byte
	spare   []byte
	taken   sync.Cond // pending was taken, or the end has come
	closed  bool

	wake   chan struct{} // a line is pending
	ending chan struct{} // closed by Close
	ended  chan struct{}
}

// NewWriter returns a writer to w. It must be closed.
func NewWriter(w io.Writer) *Writer {
	l := &Writer{to: w, wake: make(chan struct{}, 1), ending: make(chan struct{}), ended: make(chan struct{})}
	if f, ok := w.(*os.File); ok {
		l.terminal = term.IsTerminal(int(f.Fd()))
	}
	l.taken.L = &l.mu
	go l.run()
	return l
}

// Write writes b after what is pending, and returns when it is out.
func (l *Writer) Write(b []byte) (int, error) {
	l.mu.Lock()
	l.pending = append(l.pending, b...)
	l.mu.Unlock()
	return len(b), l.flush()
}

// later has b written soon. After Close it is written at once.
func (l *Writer) later(b []byte) {
	l.mu.Lock()
	for !l.closed && len(l.pending) > 0 && len(l.pending)+len(b) > maxPending {
		l.taken.Wait()
	}
	l.pending = append(l.pending, b...)
	closed := l.closed
	l.mu.Unlock()
	if closed {
		_ = l.flush()
		return
	}
	select {
	case l.wake <- struct{}{}:
	default: // run has not seen the one before yet
	}
}

// Close writes what is pending and ends the goroutine. It must be called once.
func (l *Writer) Close() error {
	l.mu.Lock()
	l.closed = true
	l.taken.Broadcast()
	l.mu.Unlock()
	close(l.ending)
	<-l.ended
	return l.flush()
}

func (l *Writer) run() {
	defer close(l.ended)
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-l.wake:
		case <-l.ending:
			return
		}
		_ = l.flush() // there is no log for a log that fails
		pause.Reset(gather)
		select {
		case <-pause.C:
		case <-l.ending:
			return
		}
	}
}

// flush writes what is pending.
func (l *Writer) flush() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	lines := l.pending
	l.pending, l.spare = l.spare[:0], nil
	l.taken.Broadcast()
	l.mu.Unlock()
	if len(lines) == 0 {
		return nil
	}
	_, err := l.to.Write(lines)
	l.mu.Lock()
	l.spare = lines[:0]
	l.mu.Unlock()
	return err
}
