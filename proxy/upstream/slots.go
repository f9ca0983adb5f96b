package upstream

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

const (
	// maxCarriers bounds the connections to one host on which bodies of blobs come in.
	maxCarriers = 16
	// maxAhead bounds them for blobs that no client has asked for: engines find slots free.
	maxAhead = maxCarriers / 2
	// slotPatience is how long the first connection for a blob waits for a slot. Those that hold
	// the slots may wait for slow clients, and a pull must not hang on other pulls.
	slotPatience = 10 * time.Second
)

// ErrNoSlot says that as many bodies of blobs come in from a host as may at once. It is the cause of
// an error to a request that is Separate or Ahead; others wait.
var ErrNoSlot = errors.New("as many connections as may be made to the host are in use")

// carriers counts the connections of the whole process, since registries share hosts.
var carriers = slots{max: maxCarriers, ahead: maxAhead, patience: slotPatience}

// slots bounds the connections that carry bodies of blobs, for each host.
type slots struct {
	max, ahead int
	patience   time.Duration

	mu        sync.Mutex
	hosts     map[string]*hostSlots
	multiplex map[string]bool // hosts that serve shared connections by HTTP/2
}

// maxMultiplex bounds the hosts of which that is remembered.
const maxMultiplex = 1024

type hostSlots struct {
	used    int
	waiting []chan struct{} // closed when the one who waits has a slot
}

// slot is the right to one connection. Its zero value is none.
type slot struct {
	of   *slots
	host string
	once sync.Once
}

// take returns a slot for r to the host of u. If none is free, a request that no client has asked
// for, or that only makes a transfer quicker, fails with [ErrNoSlot]. Any other waits for one, and
// after a time goes ahead without. A request that shares a connection needs none: nil.
func (s *slots) take(ctx context.Context, r Request, u *url.URL) (*slot, error) {
	key := hostKey(u)
	s.mu.Lock()
	if s.multiplex[key] && !r.Separate {
		s.mu.Unlock()
		return nil, nil // it needs no connection of its own
	}
	h := s.hosts[key]
	if h == nil {
		h = &hostSlots{}
		if s.hosts == nil {
			s.hosts = map[string]*hostSlots{}
		}
		s.hosts[key] = h
	}
	most := s.max
	if r.Ahead {
		most = s.ahead
	}
	if h.used < most && len(h.waiting) == 0 {
		h.used++
		s.mu.Unlock()
		return &slot{of: s, host: key}, nil
	}
	if r.Ahead || r.Separate {
		s.mu.Unlock()
		return nil, &oci.Error{Code: oci.Unavailable, Message: u.Host + " has no connection free", Err: ErrNoSlot}
	}
	mine := make(chan struct{})
	h.waiting = append(h.waiting, mine)
	s.mu.Unlock()
	return s.wait(ctx, &slot{of: s, host: key}, mine)
}

func hostKey(u *url.URL) string { return strings.ToLower(u.Hostname()) + ":" + portOf(u) }

// responded remembers whether the host of u multiplexes requests on one connection.
func (s *slots) responded(u *url.URL, multiplexes bool) {
	key := hostKey(u)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.multiplex[key] == multiplexes {
		return
	}
	if !multiplexes || len(s.multiplex) >= maxMultiplex {
		delete(s.multiplex, key)
		return
	}
	if s.multiplex == nil {
		s.multiplex = map[string]bool{}
	}
	s.multiplex[key] = true
}

// wait waits until mine is closed, which means that got is held.
func (s *slots) wait(ctx context.Context, got *slot, mine chan struct{}) (*slot, error) {
	late := time.NewTimer(s.patience)
	defer late.Stop()
	select {
	case <-mine:
		return got, nil
	case <-late.C:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[got.host]
	if i := slices.Index(h.waiting, mine); i >= 0 {
		h.waiting = slices.Delete(h.waiting, i, i+1)
		h.used++
	}
	if ctx.Err() != nil {
		s.free(got.host)
		return nil, ctx.Err()
	}
	return got, nil
}

// release gives the slot to the one who waits longest. It may be called more than once, and of nil.
func (s *slot) release() {
	if s == nil {
		return
	}
	s.once.Do(func() {
		s.of.mu.Lock()
		defer s.of.mu.Unlock()
		s.of.free(s.host)
	})
}

// free frees one slot to host. The caller holds s.mu.
func (s *slots) free(host string) {
	h := s.hosts[host]
	h.used--
	for len(h.waiting) > 0 && h.used < s.max {
		close(h.waiting[0])
		h.waiting = h.waiting[1:]
		h.used++
	}
	if h.used == 0 {
		delete(s.hosts, host)
	}
}

// carried asks u by send. If r is for the body of a blob, it takes one of the slots to u's host until
// the body is closed.
func (r Request) carried(ctx context.Context, u *url.URL, send func() (*http.Response, error)) (*http.Response, error) {
	if r.blob() == "" {
		return send()
	}
	held, err := carriers.take(ctx, r, u)
	if err != nil {
		return nil, err
	}
	resp, err := send()
	if err != nil {
		held.release()
		return nil, err
	}
	if !r.Separate {
		carriers.responded(u, resp.ProtoMajor >= 2)
	}
	// Responses of HTTP/2 share a connection, and other statuses have no long body.
	if resp.ProtoMajor >= 2 || resp.StatusCode/100 != 2 {
		held.release()
		return resp, nil
	}
	resp.Body = &closingBody{ReadCloser: resp.Body, then: held.release}
	return resp, nil
}
