package transfer

import (
	"errors"
	"slices"
	"time"

	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

const (
	// resumePause is how long the second resume waits; the third waits twice that.
	resumePause = 200 * time.Millisecond

	// longestPause is how long a resume waits at most if the upstream's 429 asks for a pause.
	longestPause = time.Minute

	// slotPause is how long a transfer that no client waits for waits for a connection.
	slotPause = time.Second
)

// ended decides how to go on when a connection has ended; canceled says that the transfer ended it.
func (t *transfer) ended(c *conn, err error, canceled bool) {
	t.mu.Lock()
	t.conns = slices.DeleteFunc(t.conns, func(other *conn) bool { return other == c })
	var single *singleError
	switch {
	case t.err != nil || t.done || t.checking:
		t.mu.Unlock()
		return
	case err == nil, canceled && !errors.Is(err, ErrMismatch) && !errors.Is(err, cache.ErrStorage):
		t.schedule()
	case errors.Is(err, cache.ErrStorage), errors.Is(err, ErrMismatch) && !errors.As(err, &single):
		t.mu.Unlock()
		t.fail(err)
		return
	case t.isOutpaced(err):
		t.mu.Unlock()
		t.fail(err)
		return
	case errors.As(err, &single):
		t.all.single.add(t.from)
		t.single = true
		t.ramp.restrict(1)
		t.schedule()
	case errors.Is(err, ErrNoConnection) && t.busy() > 0:
		t.ramp.restrict(t.busy())
	case errors.Is(err, ErrNoConnection):
		t.pause(slotPause)
	default:
		t.mu.Unlock()
		t.retry(c, err)
		return
	}
	t.mu.Unlock()
}

// retry opens another connection, after a pause, unless it was tried too often without progress.
func (t *transfer) retry(c *conn, err error) {
	t.mu.Lock()
	t.fresh = 0
	if c.brought >= minProgress {
		t.resumes = 0 // several that are cut together have each made progress
	}
	if t.resumes++; t.resumes > maxResumes {
		at := c.at
		t.mu.Unlock()
		t.fail(&brokenError{at, err})
		return
	}
	defer t.mu.Unlock()
	if d := resumeAfter(t.resumes, err); d > 0 {
		t.pause(d)
		return
	}
	t.schedule()
}

// resumeAfter returns how long to wait before the n-th resume in a row, which follows err. A client
// that has some of a blob waits for an upstream that asks for a short pause.
func resumeAfter(n int, err error) time.Duration {
	d := time.Duration(n-1) * resumePause
	if e, ok := errors.AsType[*oci.Error](err); ok && e.RetryAfter <= longestPause {
		d = max(d, e.RetryAfter)
	}
	return d
}

// pause opens no connection for a while. t.mu is held.
func (t *transfer) pause(d time.Duration) {
	t.paused = true
	time.AfterFunc(d, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.paused = false
		t.schedule()
	})
}
