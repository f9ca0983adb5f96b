package daemon

import (
	"context"
	"net/http"
	"sync"
)

// service is what answers the requests; proxy.Proxy is one.
type service interface {
	http.Handler
	// Probe says in the log what cannot be reached. It returns when it has, or ctx is done.
	Probe(ctx context.Context)
	// Close is called when no request is under way any more.
	Close()
}

// generation is the service of one configuration.
type generation struct {
	service
	streams sync.WaitGroup
	probing context.Context
	stop    context.CancelFunc // ends the probe
}

func newGeneration(ctx context.Context, s service) *generation {
	g := &generation{service: s}
	g.probing, g.stop = context.WithCancel(ctx)
	return g
}

// probe probes in the background. It is not for before systemd has been told that we
// are ready: no upstream may keep us from that.
func (g *generation) probe() {
	g.streams.Go(func() { g.Probe(g.probing) })
}

// retire waits for the streams under way, and closes. No new ones may come.
func (g *generation) retire() {
	g.stop()
	g.streams.Wait()
	g.Close()
}

// railSwitch sends each request to the generation in force when it comes in.
type railSwitch struct {
	mu      sync.RWMutex
	current *generation
}

func (s *railSwitch) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.RLock()
	g := s.current
	g.streams.Add(1) // under the lock: once swap has returned, nobody adds to the old one
	s.mu.RUnlock()
	defer g.streams.Done()
	g.ServeHTTP(w, r)
}

// inForce is the generation that the next request is sent to.
func (s *railSwitch) inForce() *generation {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.current
}

// swap puts next in force, and answers with the one that was.
func (s *railSwitch) swap(next *generation) *generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.current
	s.current = next
	return old
}
