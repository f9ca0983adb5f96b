package main

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// network is the way to an upstream. It makes each connection as late and as slow as a distant
// registry's, and can make all of them share one link. The zero value delays nothing.
type network struct {
	// latency is the round trip: each new connection and each response wait so long.
	latency atomic.Int64 // a [time.Duration]

	// rate bounds each connection, in bytes/s. 0 means as fast as it goes.
	rate atomic.Int64

	link meter // of all connections together

	open, most atomic.Int64 // connections: now, and the most at once
}

// roundTrip returns the latency.
func (n *network) roundTrip() time.Duration { return time.Duration(n.latency.Load()) }

// distantListener accepts connections through a network.
type distantListener struct {
	net.Listener

	network *network
}

// Accept implements [net.Listener].
func (l distantListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	now := l.network.open.Add(1)
	for most := l.network.most.Load(); now > most && !l.network.most.CompareAndSwap(most, now); {
		most = l.network.most.Load()
	}
	return &distantConn{Conn: c, network: l.network, accepted: time.Now()}, nil
}

// distantConn is one connection of a network.
type distantConn struct {
	net.Conn

	network  *network
	accepted time.Time
	once     sync.Once // for the handshake
	closed   sync.Once
	own      meter
}

// Read implements [net.Conn]. The first one waits for the round trip of TCP's handshake, which takes
// no time on loopback.
func (c *distantConn) Read(to []byte) (int, error) {
	c.once.Do(func() { time.Sleep(time.Until(c.accepted.Add(c.network.roundTrip()))) })
	return c.Conn.Read(to)
}

// Write implements [net.Conn].
func (c *distantConn) Write(p []byte) (int, error) {
	// In small pieces, so that connections take fair turns on the link.
	const piece = 16 << 10
	done := 0
	for done < len(p) {
		n, err := c.Conn.Write(p[done:min(len(p), done+piece)])
		done += n
		if err != nil {
			return done, err
		}
		c.own.pass(n, c.network.rate.Load())
		c.network.link.pass(n, c.network.link.rate.Load())
	}
	return done, nil
}

// Close implements [net.Conn].
func (c *distantConn) Close() error {
	c.closed.Do(func() { c.network.open.Add(-1) })
	return c.Conn.Close()
}

// meter lets bytes pass no faster than a rate.
type meter struct {
	rate atomic.Int64 // bytes/s of a link; a connection's rate is its network's

	mu   sync.Mutex
	free time.Time // when all that has passed would be through
}

// catchUp is how far a connection may be behind its rate and still catch up.
const catchUp = 10 * time.Millisecond

// pass waits until n bytes are through at rate bytes/s. A rate of 0 does not wait.
func (m *meter) pass(n int, rate int64) {
	if rate == 0 {
		return
	}
	m.mu.Lock()
	// What was not used is lost, except for what a sleep that took too long made it miss.
	if least := time.Now().Add(-catchUp); m.free.Before(least) {
		m.free = least
	}
	m.free = m.free.Add(time.Duration(int64(n) * int64(time.Second) / rate))
	early := time.Until(m.free)
	m.mu.Unlock()
	// A shorter sleep is not worth its wake-up, and takes longer than was asked.
	if early > time.Millisecond {
		time.Sleep(early)
	}
}
