package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// fetch is the source of a fill: a registry's upstreams, asked in the name of the
// call that began it. It outlives that call.
type fetch struct {
	call *call
	pool upstream.Pool

	mu   sync.Mutex
	from *upstream.Upstream // who answered first
}

// open implements [cache.Source].
func (f *fetch) open(ctx context.Context, offset int64) (cache.Part, error) {
	r := f.call.upstreamRequest(http.MethodGet)
	want := byteRange{}
	if offset > 0 {
		want = byteRange{some: true, first: offset, last: -1}
		r.Header.Set("Range", want.header())
		r.Patient = true // what is under way is worth asking for again
	}
	resp, u, err := f.call.send(ctx, f.pool, r)
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

// partOf says what part of a blob an answer is.
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

func (f *fetch) first() *upstream.Upstream {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.from
}

// answered names who answered; nobody if another call's fetch did.
func (f *fetch) answered() string {
	if u := f.first(); u != nil {
		return u.Host()
	}
	return ""
}

// lateHeader writes an answer's header with its first bytes.
type lateHeader struct {
	*answer
	status int
}

// Write implements [io.Writer].
func (l lateHeader) Write(b []byte) (int, error) {
	l.begin()
	return l.answer.Write(b)
}

// ReadFrom implements [io.ReaderFrom].
func (l lateHeader) ReadFrom(r io.Reader) (int64, error) {
	l.begin()
	return l.answer.ReadFrom(r)
}

func (l lateHeader) begin() {
	if !l.begun() {
		l.WriteHeader(l.status)
	}
}
