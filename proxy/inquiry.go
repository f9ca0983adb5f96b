package proxy

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

const (
	maxInquiries   = 256         // under way at a time
	inquiryTimeout = time.Minute // for one of them
)

// errSlow is the error of an inquiry that takes longer than freshness_timeout: if something
// is stored, the upstream counts as away.
var errSlow = &oci.Error{
	Code: oci.Unavailable, Status: http.StatusGatewayTimeout, Message: "the upstream did not answer within freshness_timeout",
}

// answer is what an upstream said to an inquiry. m is nil for a blob.
type answer struct {
	m   *manifest
	u   *upstream.Upstream
	err error
}

// inquiry asks an upstream whether what is stored still holds. It has a context of its own: if
// the upstream is slow, the client gets what is stored, and the inquiry goes on for the next
// client.
type inquiry struct {
	answer
	line accessLine // what the inquiry adds to the access line
	done chan struct{}

	group *group
	late  chan struct{} // the group's; nil for an inquiry that does not go on
	timer *time.Timer
	slow  bool // it is one of those that the group counts
}

// group is what the inquiries of one caller in one repository share: if one of them takes
// longer than freshness_timeout, no client waits for the others, so that an image of many
// layers costs that time once.
type group struct {
	running, slow int
	late          chan struct{} // closed while slow > 0
}

// inquiries are the inquiries under way. Requests of one caller for the same share one.
type inquiries struct {
	timeout time.Duration // freshness_timeout

	mu      sync.Mutex
	running map[string]*inquiry
	groups  map[string]*group
	life    context.Context
	end     context.CancelFunc
	wait    sync.WaitGroup
	closed  bool
}

func newInquiries(timeout time.Duration) *inquiries {
	life, end := context.WithCancel(context.Background())
	return &inquiries{timeout: timeout, running: map[string]*inquiry{}, groups: map[string]*group{}, life: life, end: end}
}

// begin joins the inquiry for what r's caller asks, or begins it with ask. Beyond the limit it
// asks in the caller's own time.
func (q *inquiries) begin(r *request, ask func(ctx context.Context, i *inquiry) answer) *inquiry {
	groupKey := r.fillName()
	if !r.caller.Trusted {
		groupKey += " untrusted" // whose bounds end an inquiry
	}
	key := groupKey + " " + r.http.Method + " " + r.LocalPath() + " " + strings.Join(r.http.Header.Values("Accept"), ",")
	q.mu.Lock()
	if i := q.running[key]; i != nil {
		q.mu.Unlock()
		return i
	}
	if q.closed || len(q.running) >= maxInquiries {
		q.mu.Unlock()
		return q.inline(r, ask)
	}
	g := q.groups[groupKey]
	if g == nil {
		g = &group{late: make(chan struct{})}
		q.groups[groupKey] = g
	}
	g.running++
	i := &inquiry{done: make(chan struct{}), group: g, late: g.late}
	i.timer = time.AfterFunc(q.timeout, func() { q.isSlow(i) })
	q.running[key] = i
	q.wait.Add(1)
	q.mu.Unlock()
	go q.run(key, groupKey, i, ask)
	return i
}

func (q *inquiries) run(key, groupKey string, i *inquiry, ask func(ctx context.Context, i *inquiry) answer) {
	defer q.wait.Done()
	ctx, cancel := context.WithTimeout(upstream.Within(q.life, q.timeout), inquiryTimeout)
	defer cancel()
	i.answer = safely(func() answer { return ask(ctx, i) })
	i.timer.Stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	close(i.done)
	delete(q.running, key)
	g := i.group
	if i.slow {
		if g.slow--; g.slow == 0 {
			g.late = make(chan struct{})
		}
	}
	if g.running--; g.running == 0 {
		delete(q.groups, groupKey)
	}
}

// safely turns a panic into an error, as net/http does for handlers: it must not end the process and
// with it every other pull.
func safely(ask func() answer) (a answer) {
	defer func() {
		if p := recover(); p != nil {
			a = answer{err: &oci.Error{Code: oci.Unavailable, Message: "sidemirror failed to ask the upstream", Err: fmt.Errorf("panic: %v\n%s", p, debug.Stack())}}
		}
	}()
	return ask()
}

// isSlow records that i takes longer than freshness_timeout.
func (q *inquiries) isSlow(i *inquiry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-i.done:
		return
	default:
	}
	i.slow = true
	if i.group.slow++; i.group.slow == 1 {
		close(i.group.late)
	}
}

// inline asks for as long as freshness_timeout allows, without an inquiry that goes on.
func (q *inquiries) inline(r *request, ask func(ctx context.Context, i *inquiry) answer) *inquiry {
	ctx, cancel := context.WithTimeout(r.http.Context(), q.timeout)
	defer cancel()
	i := &inquiry{done: make(chan struct{})}
	i.answer = ask(ctx, i)
	close(i.done)
	return i
}

// close ends the inquiries under way and waits for them.
func (q *inquiries) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.end()
	q.wait.Wait()
}

// isLate reports whether clients no longer wait for i.
func (i *inquiry) isLate() bool {
	select {
	case <-i.late:
		return true
	default:
		return false
	}
}

// get waits for the answer. If the upstream is late and the client may have something instead
// for that error, get returns errSlow at once.
func (i *inquiry) get(r *request, l *accessLine, instead func(err error) bool) answer {
	select {
	case <-i.done:
		return i.answered(l)
	case <-i.late:
		if instead(errSlow) {
			return answer{err: errSlow}
		}
	case <-r.http.Context().Done():
		return gone(r)
	}
	select {
	case <-i.done:
		return i.answered(l)
	case <-r.http.Context().Done():
		return gone(r)
	}
}

func (i *inquiry) answered(l *accessLine) answer {
	l.upstream = i.line.upstream
	return i.answer
}

// gone is the answer for a client that has left.
func gone(r *request) answer {
	return answer{err: &oci.Error{
		Code: oci.Unavailable, Status: http.StatusGatewayTimeout, Message: "the client left", Err: r.http.Context().Err(),
	}}
}
