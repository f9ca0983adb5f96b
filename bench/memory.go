package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// fillRate is the rate of the upstream's link while the streams' blob comes in, in bytes/s.
const fillRate = 64 * mib

// memory is what is resident when nothing is asked for, and under 500 slow streams.
func (b *bench) memory(ctx context.Context) error {
	const streams = 500
	o := order{Clients: streams, Rate: 256 << 10, Seconds: 4}
	if b.quick {
		o.Seconds = 2
	}
	names := []string{nginxCache, registryPull, sidemirror, withoutACache}
	images := newImages(2, blobSize) // one stored, one that comes in
	f, err := b.fleet(ctx, images, names...)
	if err != nil {
		return err
	}
	defer f.stop()
	if err := pause(ctx, 2*time.Second); err != nil { // until what follows a start is over
		return err
	}
	t := table{
		title: "Resident memory",
		note: fmt.Sprintf("Of all the server's processes. %d streams of one blob of 256 MiB, each read at 256 KiB/s for %g s, the highest of what was seen every 100 ms; "+
			"filling: while the upstream gives all connections together %d MiB/s. File pages are the program's own and files mapped; others may share them. "+
			"Received is what the clients got, connections the most that the upstream had.", streams, o.Seconds, fillRate/mib),
		head: []string{"server", "when", "resident", "its own", "of files", "received", "connections"},
	}
	idle, most, connections, received := map[string]int64{}, map[string]int64{}, map[string]int64{}, map[string]int64{}
	for _, name := range names {
		u := f.upstreams[name]
		err := f.memory(ctx, name, images, o, func(when string, m memory, a account) {
			t.rows = append(t.rows, []string{name, when, mebibytes(m.RSS), mebibytes(m.Anon), mebibytes(m.File), mebibytes(a.Bytes), fmt.Sprint(u.network.most.Load())})
			if when == "idle" {
				idle[name] = m.RSS
			}
			most[name] = max(most[name], m.RSS)
			connections[name] = max(connections[name], u.network.most.Load())
			received[name] = a.Bytes // of the last, which fills
		})
		if err != nil {
			return err
		}
	}
	b.tables = append(b.tables, t)
	b.judge(idle[sidemirror] <= 30*mib, "resident memory, idle", "30 MiB", mebibytes(idle[sidemirror]))
	b.judge(most[sidemirror] <= 100*mib, "resident memory, 500 streams", "100 MiB", mebibytes(most[sidemirror]))
	b.judge(most[withoutACache] <= 100*mib, "resident memory, 500 streams, no cache", "100 MiB", mebibytes(most[withoutACache]))
	b.judge(connections[withoutACache] <= 16, "connections to an upstream, 500 streams, no cache", "16", fmt.Sprint(connections[withoutACache]))
	b.judge(2*received[withoutACache] >= received[sidemirror], "bytes to 500 streams of a cold blob, no cache", "half of those with a cache",
		fmt.Sprintf("%s to %s", mebibytes(received[withoutACache]), mebibytes(received[sidemirror])))
	return nil
}

// memory reports what one server has resident: idle, while it serves a stored blob, and while it
// fetches one.
func (f *fleet) memory(ctx context.Context, name string, images []*image, o order, report func(when string, m memory, a account)) error {
	s, u := f.servers[name], f.upstreams[name]
	m, err := s.memory()
	if err != nil {
		return err
	}
	report("idle", m, account{})
	for _, img := range images {
		if err := s.fetch(ctx, s.path("manifests", img.manifest.digest), img.manifest); err != nil {
			return err
		}
	}
	streams := func(when string, layer *blob) error {
		o.Address, o.Path = s.address, s.blob(layer)
		u.reset()
		a, m, err := s.under(ctx, o)
		if err == nil {
			report(when, m, a)
		}
		return err
	}
	if name != withoutACache {
		if err := s.fetch(ctx, s.blob(images[0].layers[0]), images[0].layers[0]); err != nil {
			return err
		}
		if err := streams("500 streams, warm", images[0].layers[0]); err != nil {
			return err
		}
	}
	if name == nginxCache || name == registryPull {
		return nil // nginx holds all clients back, and distribution fetches 500 times
	}
	u.network.link.rate.Store(fillRate)
	defer u.network.link.rate.Store(0)
	return streams("500 streams, filling", images[1].layers[0])
}

// under has a client process do o, and returns what it did and the most that was resident meanwhile.
func (s *server) under(ctx context.Context, o order) (account, memory, error) {
	type ending struct {
		account account
		err     error
	}
	done := make(chan ending, 1)
	go func() {
		a, err := runClient(ctx, o)
		done <- ending{a, err}
	}()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	most, fault := s.memory()
	for {
		select {
		case end := <-done:
			return end.account, most, errors.Join(end.err, fault)
		case <-tick.C:
			m, err := s.memory()
			if err != nil {
				fault = err
				continue
			}
			if m.RSS > most.RSS {
				most = m
			}
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
