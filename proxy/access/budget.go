package access

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

// ErrNoMemory says that untrusted callers hold as much memory already as they may.
var ErrNoMemory = errors.New("untrusted callers hold too much memory")

// Budget bounds how many bytes of response bodies are held in memory for untrusted callers, all
// together. Without it a few hundred clients that ask for long lists and do not read them would
// take gigabytes.
type Budget struct{ free atomic.Int64 }

// NewBudget returns a budget of that many bytes.
func NewBudget(bytes int64) *Budget {
	b := &Budget{}
	b.free.Store(bytes)
	return b
}

// Allowance returns what a request of the caller may take from the budget. For a trusted caller
// it is nil, which is without bound.
func (b *Budget) Allowance(c Caller) *Allowance {
	if c.Trusted {
		return nil
	}
	return &Allowance{budget: b}
}

// Allowance is what one request holds of a [Budget].
type Allowance struct {
	budget *Budget

	mu       sync.Mutex
	taken    int64
	released bool
}

// Hold makes the request hold at least that many bytes until Release.
func (a *Allowance) Hold(bytes int64) error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	more := bytes - a.taken
	if more <= 0 {
		return nil
	}
	if a.released {
		return ErrNoMemory
	}
	if a.budget.free.Add(-more) < 0 {
		a.budget.free.Add(more)
		return ErrNoMemory
	}
	a.taken += more
	return nil
}

// Release returns what the request holds. What goes on for it in the background can hold no more.
func (a *Allowance) Release() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.budget.free.Add(a.taken)
	a.taken, a.released = 0, true
}

// Reader returns body, whose bytes count as held when they are read.
func (a *Allowance) Reader(body io.ReadCloser) io.ReadCloser {
	if a == nil {
		return body
	}
	return &heldReader{ReadCloser: body, allowance: a}
}

type heldReader struct {
	io.ReadCloser
	allowance *Allowance
	read      int64
}

// Read implements [io.Reader].
func (r *heldReader) Read(p []byte) (int, error) {
	if err := r.allowance.Hold(r.read + int64(len(p))); err != nil {
		return 0, err
	}
	n, err := r.ReadCloser.Read(p)
	r.read += int64(n)
	return n, err
}
