package main

import (
	"context"
	"errors"
	"time"
)

// latency is the round trip to a distant upstream.
const latency = 50 * time.Millisecond

// direct names a row without a server in between.
const direct = "direct"

// far starts the server called name, or none for direct, with an upstream of its own that is latency
// away and has img. stop stops both.
func (b *bench) far(ctx context.Context, name string, listen func() (*upstream, error), images ...*image) (*upstream, *server, func(), error) {
	u, err := listen()
	if err != nil {
		return nil, nil, nil, err
	}
	u.add(images...)
	u.network.latency.Store(int64(latency))
	s := u.asServer()
	if name != direct {
		if s, err = b.start(ctx, name, u); err != nil {
			u.close()
			return nil, nil, nil, err
		}
	}
	return u, s, func() {
		if s.process.cmd != nil {
			s.stop()
		}
		u.close()
	}, nil
}

// listener returns the constructor of an upstream that offers HTTP/2 over TLS, or of one that speaks
// plain HTTP/1.1.
func (b *bench) listener(secure bool) func() (*upstream, error) {
	if !secure {
		return newUpstream
	}
	return func() (*upstream, error) { return newSecureUpstream(b.dir) }
}

// asServer returns the upstream itself as one of the servers that clients can ask.
func (u *upstream) asServer() *server {
	return &server{process: &process{name: direct}, address: u.address, scheme: u.scheme, ca: u.ca}
}

// url is the whole address of what [server.path] names.
func (s *server) url(kind, name string) string { return s.origin() + s.path(kind, name) }

// origin is where s serves.
func (s *server) origin() string {
	if s.scheme == "" {
		return "http://" + s.address
	}
	return s.scheme + "://" + s.address
}

// settle waits until the upstream has had nothing to do for a while, so that what a server fetches
// after its client has gone is counted too.
func (u *upstream) settle(ctx context.Context) error {
	const quiet, limit = 300 * time.Millisecond, time.Minute
	type state struct{ requests, sent int64 }
	var last state
	for begun, since := time.Now(), time.Now(); time.Since(since) < quiet; {
		if now := (state{u.requests.Load(), u.sent.Load()}); now != last {
			last, since = now, time.Now()
		}
		if time.Since(begun) > limit {
			return errors.New("the upstream is still asked, a minute after the client has gone")
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
