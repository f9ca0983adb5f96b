package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"

	"github.com/sidemirror/sidemirror/daemon/admin"
	"github.com/sidemirror/sidemirror/daemon/listener"
	"github.com/sidemirror/sidemirror/daemon/metrics"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/observe"
)

// metricsListener serves the metrics at the addresses in metrics.listen. No pull needs them, so that
// an address that cannot be opened is a problem, and ends nothing.
type metricsListener struct {
	handler http.Handler
	serving sync.WaitGroup

	mu       sync.Mutex
	open     map[netip.AddrPort]*http.Server
	problems []*problem.Problem
}

// follow makes the listener serve addrs, and no others.
func (l *metricsListener) follow(ctx context.Context, addrs []netip.AddrPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problems = nil
	for addr, server := range l.open {
		if !slices.Contains(addrs, addr) {
			_ = server.Close()
			delete(l.open, addr)
		}
	}
	for _, addr := range addrs {
		if l.open[addr] != nil {
			continue
		}
		socket, err := listener.Open(ctx, addr)
		if err != nil {
			l.problems = append(l.problems, &problem.Problem{
				Code: "metrics-unavailable", Text: fmt.Sprintf("the metrics are not served at %v", addr), Err: errors.Unwrap(err),
				Hint: "change metrics.listen, or end the process that has the address; \"systemctl reload sidemirror\" tries again",
			})
			continue
		}
		server := listener.NewServer(l.handler)
		if l.open == nil {
			l.open = map[netip.AddrPort]*http.Server{}
		}
		l.open[addr] = server
		few := listener.Limit(socket, listener.NewLimiter(func(net.Conn) bool { return false }))
		l.serving.Go(func() {
			if err := server.Serve(few); !errors.Is(err, http.ErrServerClosed) {
				_ = few.Close()
			}
		})
	}
}

// wrong returns which addresses are not served.
func (l *metricsListener) wrong() []*problem.Problem {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.problems)
}

// close ends all.
func (l *metricsListener) close() {
	l.follow(context.Background(), nil)
	l.serving.Wait()
}

// observe makes what observes the services of the daemon, which is of that version.
func (d *daemon) observe(version string) {
	d.version = version
	d.metrics = metrics.New(version, metrics.Present{
		CacheBytes: d.caches.used, Problems: d.health.Problems, LastPulls: d.activity.LastPulls, Repairs: d.repairs, Shared: d.sharedStats,
		Reachable: d.activity.Reachable,
	})
	d.caches.observer = observe.All{d.activity, d.metrics}
	d.scraped.handler = admin.Public(d, d.metrics.Handler())
}
