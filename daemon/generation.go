package daemon

import (
	"context"
	"net/http"
	"sync"
)

// service answers the requests of one configuration; proxy.Proxy is one.
type service interface {
	http.Handler

	// Probe logs what cannot be reached. It returns when it is done, or when ctx is.
	Probe(ctx context.Context)

	// Close is called when no request is under way any more.
	Close()
}

// generation is the service of one configuration and the requests that it is answering.
type generation struct {
	service
	requests sync.WaitGroup
	probing  context.Context
	stop     context.CancelFunc // ends the probe
}

func newGeneration(ctx context.Context, s service) *generation {
	g := &generation{service: s}
	g.probing, g.stop = context.WithCancel(ctx)
	return g
}

// probe probes in the background. Call it after systemd was notified of readiness, which no
// upstream may delay.
func (g *generation) probe() {
	g.requests.Go(func() { g.Probe(g.probing) })
}

// retire waits for the requests under way, and closes the service. There must be no new ones.
func (g *generation) retire() {
	g.stop()
	g.requests.Wait()
	g.Close()
}

// currentGeneration sends each request to the generation that is in force when it comes in.
type currentGeneration struct {
	mu      sync.RWMutex
	current *generation
}

// ServeHTTP implements [http.Handler].
func (c *currentGeneration) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g := c.use()
	defer g.requests.Done()
	g.ServeHTTP(w, r)
}

// use returns the generation in force, which is not retired before its requests.Done is called.
func (c *currentGeneration) use() *generation {
	c.mu.RLock()
	defer c.mu.RUnlock()
	c.current.requests.Add(1) // under the lock: once swap has returned, the old one gets no more
	return c.current
}

// get returns the generation that the next request is sent to.
func (c *currentGeneration) get() *generation {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.current
}

// swap puts next in force and returns the one before; nil if there was none.
func (c *currentGeneration) swap(next *generation) *generation {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.current
	c.current = next
	return old
}
