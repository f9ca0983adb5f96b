package proxy

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// fetch is the source of a fill: a registry's upstreams, asked in the name of the request that
// began it. It outlives that request.
type fetch struct {
	request *request
	pool    upstream.Pool

	mu   sync.Mutex
	from *upstream.Upstream // the one that responded first
}

// open implements [cache.Source].
func (f *fetch) open(ctx context.Context, offset int64) (cache.Part, error) {
	q := f.request.query(http.MethodGet)
	want := byteRange{}
	if offset > 0 {
		want = byteRange{some: true, first: offset, last: -1}
		q.Header.Set("Range", want.header())
		// A fill that is under way is worth asking again for.
		q.Patient, q.HeaderTimeout = true, upstream.BodyPause
	}
	resp, u, err := f.request.send(ctx, f.pool, q)
	if err != nil {
		return cache.Part{}, err
	}
	f.mu.Lock()
	if f.from == nil {
		f.from = u
	}
	f.mu.Unlock()
	part, err := partOf(resp, want)
	if err != nil {
		_ = resp.Body.Close()
		return part, fmt.Errorf("%s sent %w", u.Host(), err)
	}
	return part, nil
}

// partOf says what part of a blob a response is.
func partOf(resp *http.Response, want byteRange) (cache.Part, error) {
	switch resp.StatusCode {
	case http.StatusOK:
		return cache.Part{Body: resp.Body, Total: resp.ContentLength}, nil
	case http.StatusPartialContent:
		start, end, total, err := parseContentRange(resp.Header.Get("Content-Range"))
		if err != nil {
			return cache.Part{}, err
		}
		if !want.some || !want.matches(start, end, total) {
			return cache.Part{}, fmt.Errorf("another range than was asked for")
		}
		return cache.Part{Body: resp.Body, Offset: start, Total: total}, nil
	}
	return cache.Part{}, fmt.Errorf("a %d to a GET", resp.StatusCode)
}

// first returns the upstream that responded first; nil if another request began the fill.
func (f *fetch) first() *upstream.Upstream {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.from
}
