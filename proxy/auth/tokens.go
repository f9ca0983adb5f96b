package auth

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// maxTokens bounds the tokens stored per upstream. At the limit the expired ones are
// dropped, and then any other.
const maxTokens = 4096

var errReplaced = errors.New("the configuration of the registry was replaced while the request waited")

// tokenKey says whose token it is and for what.
type tokenKey struct{ generation, scope string }

// tokens stores tokens. It does not store errors: the next caller asks again.
type tokens struct {
	mu      sync.Mutex
	stored  map[tokenKey]*token
	flights singleflight.Group

	ctx    context.Context // of the exchanges; made at the first
	cancel context.CancelFunc
	wait   sync.WaitGroup
	closed bool
}

// get returns the live token for key, or the one that fetch returns. One fetch runs per
// key, however many callers wait for it, on a context of its own: if the first caller
// leaves, the others are not affected.
func (c *tokens) get(ctx context.Context, key tokenKey, fetch func(context.Context) (*token, error)) (*token, error) {
	c.mu.Lock()
	if t := c.stored[key]; t.live(time.Now()) {
		c.mu.Unlock()
		return t, nil
	}
	if c.closed {
		c.mu.Unlock()
		return nil, errReplaced
	}
	if c.ctx == nil {
		c.ctx, c.cancel = context.WithCancel(context.Background())
	}
	c.wait.Add(1)
	flight := c.flights.DoChan(key.generation+"\x00"+key.scope, func() (any, error) {
		return c.fetch(key, fetch)
	})
	c.mu.Unlock()
	defer c.wait.Done()

	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-flight:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*token), nil
	}
}

func (c *tokens) fetch(key tokenKey, fetch func(context.Context) (*token, error)) (*token, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, errReplaced
	}
	if t := c.stored[key]; t.live(time.Now()) { // another fetch has just ended
		c.mu.Unlock()
		return t, nil
	}
	c.wait.Add(1)
	c.mu.Unlock()
	defer c.wait.Done()

	ctx, cancel := context.WithTimeout(c.ctx, tokenTimeout)
	defer cancel()
	t, err := fetch(ctx)
	if err != nil {
		return nil, err
	}
	c.put(key, t)
	return t, nil
}

func (c *tokens) put(key tokenKey, t *token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stored == nil {
		c.stored = map[tokenKey]*token{}
	}
	if len(c.stored) >= maxTokens {
		now := time.Now()
		for k, old := range c.stored {
			if !old.live(now) {
				delete(c.stored, k)
			}
		}
		for k := range c.stored {
			if len(c.stored) < maxTokens {
				break
			}
			delete(c.stored, k)
		}
	}
	c.stored[key] = t
}

// drop forgets t, unless another token has taken its place: of thirty requests whose
// token was revoked, one fetches a new token and the rest find it.
func (c *tokens) drop(key tokenKey, t *token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t != nil && c.stored[key] == t {
		delete(c.stored, key)
	}
}

func (c *tokens) close() {
	c.mu.Lock()
	c.closed = true
	if c.cancel != nil {
		c.cancel()
	}
	c.mu.Unlock()
	c.wait.Wait()
}
