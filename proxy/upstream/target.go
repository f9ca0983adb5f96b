package upstream

import (
	"context"
	"net/http"
	"net/url"
	"sync"
)

// Target remembers where an upstream redirected a request for a blob, so that requests for the other
// ranges of that blob go there at once. It is for one transfer: one blob, one upstream, one identity.
// Its zero value remembers nothing. It may be used by several goroutines.
type Target struct {
	mu     sync.Mutex
	at     *url.URL
	reused bool // a request that went there at once was served
	never  bool // the first one was not: the URL is good for one use
}

func (t *Target) get() *url.URL {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.at
}

func (t *Target) remember(at *url.URL) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.never {
		t.at, t.reused = at, false
	}
}

func (t *Target) served() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reused = true
}

// refused forgets at. The server there did not serve it a second time: it has expired, or it is
// good for one use.
func (t *Target) refused(at *url.URL) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at == at {
		t.never = t.never || !t.reused
		t.at = nil
	}
}

// fetchAgain asks where the upstream redirected an earlier request for r's blob. It returns nil if
// nothing is remembered, or if the server there does not serve the blob any more: then the
// upstream must be asked. A signed URL expires.
func (u *Upstream) fetchAgain(ctx context.Context, r Request) (*http.Response, error) {
	at := r.Target.get()
	if at == nil {
		return nil, nil
	}
	resp, err := u.fetchRedirect(ctx, r, at, false)
	if err != nil {
		if ctx.Err() != nil || isNoSlot(err) {
			return nil, err
		}
		r.Target.refused(at)
		return nil, nil
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable, http.StatusTooManyRequests:
		r.Target.served()
		return resp, nil
	}
	drain(resp)
	r.Target.refused(at)
	return nil, nil
}
