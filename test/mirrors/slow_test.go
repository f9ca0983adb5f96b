package mirrors

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/registry"
)

// slowLine is a TCP proxy before a server. Each request waits, and the bytes of all responses together
// come at a rate; 0 is as fast as they go.
type slowLine struct {
	to   string
	wait time.Duration
	rate int

	mu   sync.Mutex
	open []net.Conn
}

// newSlowLine starts a proxy before to. It returns its address.
func newSlowLine(t *testing.T, to string, wait time.Duration, rate int) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &slowLine{to: to, wait: wait, rate: rate}
	var carrying sync.WaitGroup
	carrying.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			carrying.Go(func() { s.carry(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.mu.Lock()
		for _, c := range s.open {
			_ = c.Close()
		}
		s.mu.Unlock()
		carrying.Wait()
	})
	return l.Addr().String()
}

// carry passes on what comes on one connection.
func (s *slowLine) carry(c net.Conn) {
	server, err := new(net.Dialer).DialContext(context.Background(), "tcp", s.to)
	if err != nil {
		_ = c.Close()
		return
	}
	s.mu.Lock()
	s.open = append(s.open, c, server)
	s.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { _ = pass(server, c, func(int) { time.Sleep(s.wait) }) })
	both.Go(func() {
		_ = pass(c, server, func(n int) {
			if s.rate > 0 {
				s.mu.Lock() // one line for all connections
				defer s.mu.Unlock()
				time.Sleep(time.Duration(n) * time.Second / time.Duration(s.rate))
			}
		})
	})
	both.Wait()
}

// pass passes bytes on, and waits before each piece. It ends both connections when one ends.
func pass(to, from net.Conn, before func(n int)) error {
	b := make([]byte, 4<<10)
	for {
		n, err := from.Read(b)
		before(n)
		_, werr := to.Write(b[:n])
		if err = errors.Join(err, werr); err != nil {
			return errors.Join(err, to.Close(), from.Close())
		}
	}
}

func TestEnginesPullPastAMirrorThatIsSlow(t *testing.T) {
	for name, slow := range map[string]struct {
		wait  time.Duration
		rate  int
		cache string
	}{
		"it responds late":            {2 * time.Second, 0, ""},
		"it trickles":                 {0, 50_000, ""},
		"it trickles without a cache": {0, 50_000, "none"},
	} {
		t.Run(name, func(t *testing.T) {
			home := registry.Start(t, registry.Options{})
			mirror := registry.Start(t, registry.Options{CacheOf: home})
			shape := registry.Shape{Index: true, Size: 2_000_000, Layers: 4}
			home.Push(t, "library/first", "v1", shape)
			home.Push(t, "library/later", "v1", shape)
			s := harness.Start(t, harness.Options{Cache: slow.cache, Registries: []harness.Registry{{
				Name:      "docker.io",
				Upstreams: []string{"http://" + newSlowLine(t, mirror.Host, slow.wait, slow.rate), home.URL.String()},
			}}})
			e := newEngines(t, s)
			e.pull("library/first", "v1")
			if all, _ := mirror.Requests("/v2/library/first/"); all == 0 {
				t.Error("the mirror was not asked")
			}
			if log := s.Log(); !strings.Contains(log, "upstream skipped for a while") {
				t.Errorf("the mirror is not skipped:\n%s", log)
			}
			e.pull("library/later", "v1")
			if _, ours := home.Requests("/v2/library/later/blobs/"); ours == 0 {
				t.Error("the registry was asked for no blob")
			}
		})
	}
}
