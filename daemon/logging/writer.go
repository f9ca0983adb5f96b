package logging

import (
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// maxPending is how many bytes of lines wait for a slow reader of the log, before the next line
// waits too.
const maxPending = 1 << 20

// Writer writes to another writer, in order and in a goroutine of its own, so that a request does
// not wait for its line, and lines of many requests go out together. Nothing is lost: a line waits
// if too many do, and Close returns when all are out.
type Writer struct {
	to       io.Writer
	terminal bool

	mu      sync.Mutex
	changed sync.Cond // there is something pending, or nothing any more, or the end has come
	pending []byte
	closed  bool
	ended   chan struct{}
}

// NewWriter returns a writer to w. It must be closed.
func NewWriter(w io.Writer) *Writer {
	l := &Writer{to: w, ended: make(chan struct{})}
	if f, ok := w.(*os.File); ok {
		l.terminal = term.IsTerminal(int(f.Fd()))
	}
	l.changed.L = &l.mu
	go l.run()
	return l
}

// Write implements [io.Writer]. After Close it writes at once.
func (l *Writer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed && len(l.pending) > 0 && len(l.pending)+len(b) > maxPending {
		l.changed.Wait()
	}
	if l.closed {
		<-l.ended // the lines before it are out
		return l.to.Write(b)
	}
	l.pending = append(l.pending, b...)
	l.changed.Broadcast()
	return len(b), nil
}

// Close writes what is pending and ends the goroutine.
func (l *Writer) Close() error {
	l.mu.Lock()
	l.closed = true
	l.changed.Broadcast()
	l.mu.Unlock()
	<-l.ended
	return nil
}

func (l *Writer) run() {
	defer close(l.ended)
	var lines []byte
	for {
		l.mu.Lock()
		for len(l.pending) == 0 && !l.closed {
			l.changed.Wait()
		}
		if len(l.pending) == 0 {
			l.mu.Unlock()
			return
		}
		lines, l.pending = l.pending, lines[:0]
		l.changed.Broadcast()
		l.mu.Unlock()
		_, _ = l.to.Write(lines) // there is no log for a log that fails
	}
}
