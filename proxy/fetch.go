package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/proxy/prefetch"
	"github.com/sidemirror/sidemirror/proxy/transfer"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// fetch is the source of a transfer: a registry's upstreams, asked in the name of one request. It
// outlives that request.
type fetch struct {
	request *request
	ahead   *prefetch.Prefetcher // nil: a client waits for the blob

	mu      sync.Mutex
	herd    func(context.Context, *upstream.Upstream, transfer.Part) bool // nil: it waits for no other host
	last    *upstream.Upstream                                            // the one that responded last
	asked   time.Time                                                     // when the last request was sent to which it sent some of the blob
	targets map[*upstream.Upstream]*upstream.Target
}

// Upstreams implements [transfer.Source].
func (f *fetch) Upstreams() []string {
	var names []string
	for _, u := range f.request.registry.pool {
		names = append(names, u.Name())
	}
	return names
}

// Open implements [transfer.Source].
func (f *fetch) Open(ctx context.Context, r transfer.Range, o transfer.Options) (transfer.Part, error) {
	q := f.request.query(http.MethodGet)
	if h := rangeHeader(r); h != "" {
		q.Header.Set("Range", h)
	}
	if o.Resume { // a blob that is under way is worth asking again for
		q.Patient, q.HeaderTimeout = true, upstream.BodyPause
	}
	q.Separate, q.Ahead = o.Separate, o.Ahead
	pool := f.pool(o)
	q.Others = f.others(o)
	if len(pool) == 1 {
		q.Target = f.target(pool[0], !o.Separate)
	}
	asked := time.Now()
	resp, u, err := f.request.send(ctx, pool, q)
	f.mu.Lock()
	if u != nil {
		f.last = u
	}
	if err == nil && asked.After(f.asked) {
		f.asked = asked
	}
	f.mu.Unlock()
	if errors.Is(err, upstream.ErrNoSlot) {
		err = fmt.Errorf("%w: %w", transfer.ErrNoConnection, err)
	}
	if err != nil {
		return transfer.Part{}, err
	}
	part, err := partOf(resp, r)
	if err != nil {
		_ = resp.Body.Close()
		var none *transfer.UnsatisfiableError
		if errors.As(err, &none) {
			return part, err
		}
		return part, fmt.Errorf("%s sent %w", u.Host(), err)
	}
	part.From = u.Name()
	if herd := f.getHerd(); herd != nil && !o.Resume && o.Only == "" && herd(ctx, u, part) {
		_ = part.Body.Close()
		return transfer.Part{}, errInSharedStore
	}
	if f.ahead != nil {
		part.Body = f.ahead.Body(ctx, f.request.Digest, part.Body)
	}
	return part, nil
}

// setHerd sets what makes the fetch wait, with the response of an upstream open, for another host that
// fetches the same blob. It reports whether the shared store has the blob then.
func (f *fetch) setHerd(herd func(context.Context, *upstream.Upstream, transfer.Part) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.herd = herd
}

func (f *fetch) getHerd() func(context.Context, *upstream.Upstream, transfer.Part) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.herd
}

// pool returns the upstreams to ask.
func (f *fetch) pool(o transfer.Options) upstream.Pool {
	return slices.DeleteFunc(slices.Clone(f.request.registry.pool), func(u *upstream.Upstream) bool {
		return o.Only != "" && u.Name() != o.Only || slices.Contains(o.Without, u.Name())
	})
}

// others returns the upstreams that could be asked in the place of the only one that is.
func (f *fetch) others(o transfer.Options) (others upstream.Pool) {
	only := false
	for _, u := range f.request.registry.pool {
		if only && !slices.Contains(o.Without, u.Name()) {
			others = append(others, u)
		}
		only = only || u.Name() == o.Only
	}
	return others
}

// target returns what is remembered of where an upstream redirects; if anew is true, nothing: a
// connection that broke off may have had a URL for one use.
func (f *fetch) target(u *upstream.Upstream, anew bool) *upstream.Target {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.targets == nil {
		f.targets = map[*upstream.Upstream]*upstream.Target{}
	}
	if f.targets[u] == nil || anew {
		f.targets[u] = &upstream.Target{}
	}
	return f.targets[u]
}

// responded returns the upstream that responded last; nil if the request of another one was joined.
func (f *fetch) responded() *upstream.Upstream {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// askedAt returns when the last request was sent to which an upstream has sent some of the blob; zero
// if none has.
func (f *fetch) askedAt() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// partOf says what part of a blob a response is, in answer to a request for r. An upstream may send
// less than was asked for.
func partOf(resp *http.Response, r transfer.Range) (transfer.Part, error) {
	p := transfer.Part{Body: resp.Body, End: -1, Total: -1, ETag: resp.Header.Get("ETag")}
	switch resp.StatusCode {
	case http.StatusOK:
		p.Total, p.End = resp.ContentLength, resp.ContentLength
		p.Ranged = rangeHeader(r) == "" && p.Total >= 0 && !strings.EqualFold(resp.Header.Get("Accept-Ranges"), "none")
		return p, nil
	case http.StatusRequestedRangeNotSatisfiable:
		var size int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes */%d", &size); err != nil || size < 0 || rangeHeader(r) == "" {
			return p, errors.New("a 416 that makes no sense")
		}
		return p, &transfer.UnsatisfiableError{Size: size}
	case http.StatusPartialContent:
		var err error
		if p.Start, p.End, p.Total, err = parseContentRange(resp.Header.Get("Content-Range")); err != nil {
			return p, err
		}
		if !answers(p, r) || resp.ContentLength >= 0 && resp.ContentLength != p.End-p.Start {
			return p, errors.New("another range than was asked for")
		}
		p.Ranged = true
		return p, nil
	}
	return p, fmt.Errorf("a %d to a GET", resp.StatusCode)
}

// answers reports whether a Content-Range is that of the range asked for, or of its beginning.
func answers(p transfer.Part, r transfer.Range) bool {
	if rangeHeader(r) == "" {
		return false
	}
	if p.Total < 0 {
		return r.Start >= 0 && p.Start == r.Start && (r.End < 0 || p.End <= r.End)
	}
	e, ok := r.Of(p.Total)
	return ok && p.Start == e.Start && p.End <= e.End
}
