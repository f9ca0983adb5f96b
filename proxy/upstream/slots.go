package upstream

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

const (
	// maxCarriers is how many bodies of blobs may come in from one host before no connection is
	// added that no client needs.
	maxCarriers = 16
	// maxAhead bounds them for blobs that no client has asked for: engines find slots free.
	maxAhead = maxCarriers / 2
)

// ErrNoSlot says that as many bodies of blobs come in from a host as may at once. It is the cause of
// an error to a request that is Separate or Ahead. Others are never refused and wait for none: asked
// without sidemirror, the registry would serve them too.
var ErrNoSlot = errors.New("as many connections as may be made to the host are in use")

// carriers counts the bodies of the whole process, since registries share hosts.
var carriers = slots{max: maxCarriers, ahead: maxAhead}

// slots counts the bodies of blobs that come in, for each host. Untrusted callers, who may read as slowly
// as they want, take none of those that trusted callers may have.
type slots struct {
	max, ahead int

	mu        sync.Mutex
	used      map[string]bodies
	multiplex map[string]bool // hosts that serve shared connections by HTTP/2
}

// maxMultiplex bounds the hosts of which that is remembered.
const maxMultiplex = 1024

// bodies are how many come in from a host.
type bodies struct{ all, trusted int }

// count counts n bodies more.
func (b bodies) count(n int, untrusted bool) bodies {
	b.all += n
	if !untrusted {
		b.trusted += n
	}
	return b
}

// against returns how many count against one more.
func (b bodies) against(untrusted bool) int {
	if untrusted {
		return b.all
	}
	return b.trusted
}

// slot is the right to one body.
type slot struct {
	of        *slots
	host      string
	untrusted bool
	once      sync.Once

	// own means that the body must not share a connection. By HTTP/2 all bodies of a host would
	// come in on one, and engines, which speak HTTP/1.1, would have one for each without
	// sidemirror.
	own bool
}

// take returns a slot for r to the host of u.
func (s *slots) take(r Request, u *url.URL) (*slot, error) {
	key := hostKey(u)
	s.mu.Lock()
	defer s.mu.Unlock()
	most := s.max
	if r.Ahead {
		most = s.ahead
	}
	used := s.used[key]
	if (r.Ahead || r.Separate) && used.against(r.Untrusted) >= most {
		return nil, &oci.Error{Code: oci.Unavailable, Message: u.Host + " has no connection free", Err: ErrNoSlot}
	}
	if s.used == nil {
		s.used = map[string]bodies{}
	}
	s.used[key] = used.count(1, r.Untrusted)
	own := s.multiplex[key] && used.all > 0 && used.against(r.Untrusted) < s.max
	return &slot{of: s, host: key, untrusted: r.Untrusted, own: own}, nil
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

// release frees the slot. It may be called more than once.
func (s *slot) release() {
	s.once.Do(func() {
		s.of.mu.Lock()
		defer s.of.mu.Unlock()
		left := s.of.used[s.host].count(-1, s.untrusted)
		if s.of.used[s.host] = left; left.all == 0 {
			delete(s.of.used, s.host)
		}
	})
}

// carried asks u by send, on a connection of the request's own or not. If r is for the body of a
// blob, it holds a slot of u's host until the body is closed.
func (r Request) carried(u *url.URL, send func(own bool) (*http.Response, error)) (*http.Response, error) {
	if r.blob() == "" {
		return send(false)
	}
	held, err := carriers.take(r, u)
	if err != nil {
		return nil, err
	}
	resp, err := send(held.own)
	if err != nil {
		held.release()
		return nil, err
	}
	if !r.Separate && !held.own {
		carriers.responded(u, resp.ProtoMajor >= 2)
	}
	if resp.StatusCode/100 != 2 { // it has no long body
		held.release()
		return resp, nil
	}
	resp.Body = &closingBody{ReadCloser: resp.Body, then: held.release}
	return resp, nil
}
