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

	// gather is how long lines gather after a write. A line that comes later is written at once.
	gather = 2 * time.Millisecond
)

// Writer writes to another writer, in order and in a goroutine of its own, so that a request does
// not wait for its line, and lines of many requests go out together. Nothing is lost: a line waits
// if too many do, and Close returns when all are out.
type Writer struct {
	to       io.Writer
	terminal bool

	mu      sync.Mutex
	pending []byte
	taken   sync.Cond // pending was taken, or the end has come
	closed  bool

	wake   chan struct{} // a line is pending, or the end has come
	ending chan struct{} // closed by Close
	ended  chan struct{} // all is out
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

// Write implements [io.Writer]. After Close it writes at once.
func (l *Writer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed && len(l.pending) > 0 && len(l.pending)+len(b) > maxPending {
		l.taken.Wait()
	}
	if l.closed {
		<-l.ended // the lines before it are out
		return l.to.Write(b)
	}
	if len(l.pending) == 0 {
		l.wake <- struct{}{} // run has taken the one before
	}
	l.pending = append(l.pending, b...)
	return len(b), nil
}

// Close writes what is pending and ends the goroutine. It must be called once.
func (l *Writer) Close() error {
	l.mu.Lock()
	l.closed = true
	l.taken.Broadcast()
	l.mu.Unlock()
	close(l.ending)
	<-l.ended
	return nil
}

func (l *Writer) run() {
	defer close(l.ended)
	pause := time.NewTimer(0)
	defer pause.Stop()
	var lines []byte
	for {
		select {
		case <-l.wake:
		case <-l.ending:
			_, _ = l.to.Write(l.take(nil))
			return
		}
		lines = l.take(lines[:0])
		_, _ = l.to.Write(lines) // there is no log for a log that fails
		pause.Reset(gather)
		select {
		case <-pause.C:
		case <-l.ending:
		}
	}
}

// take returns what is pending, and has the next lines gather in spare.
func (l *Writer) take(spare []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.pending
	l.pending = spare
	l.taken.Broadcast()
	return lines
}
