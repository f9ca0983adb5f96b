package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// memory is what is resident when nothing is asked for, and under 500 slow streams.
func (b *bench) memory(ctx context.Context) error {
	const streams = 500
	lasting := 4 * time.Second
	if b.quick {
		lasting = 2 * time.Second
	}
	names := []string{nginxCache, registryPull, sidemirror}
	img := newImage("v1", 2, blobSize)
	f, err := b.fleet(ctx, []*image{img}, names...)
	if err != nil {
		return err
	}
	defer f.stop()
	if err := pause(ctx, 2*time.Second); err != nil { // to be done with what starting sets off
		return err
	}
	t := table{
		title: "Resident memory",
		note: fmt.Sprintf("Of all the server's processes. %d streams of one blob of 256 MiB, each read at 256 KiB/s for %v, the highest of what was seen every 100 ms; "+
			"filling: while the upstream gives it at 32 MiB/s. File pages are the program's own and files mapped; others may share them.", streams, lasting),
		head: []string{"server", "when", "resident", "its own", "of files"},
	}
	row := func(name, when string, m memory) {
		t.rows = append(t.rows, []string{name, when, mebibytes(m.RSS), mebibytes(m.Anon), mebibytes(m.File)})
	}
	o := order{Clients: streams, Rate: 256 << 10, Seconds: lasting.Seconds()}
	var still, most memory
	for _, name := range names {
		s, u := f.servers[name], f.upstreams[name]
		m, err := s.memory()
		if err != nil {
			return err
		}
		row(name, "idle", m)
		if name == sidemirror {
			still = m
		}
		if err := s.fetch(ctx, s.path("manifests", img.manifest.digest), img.manifest); err != nil {
			return err
		}
		warm := img.layers[0]
		if err := s.fetch(ctx, s.blob(warm), warm); err != nil {
			return err
		}
		o.Address, o.Path = s.address, s.blob(warm)
		if _, m, err = s.under(ctx, o); err != nil {
			return err
		}
		row(name, "500 streams, warm", m)
		if name != sidemirror {
			continue // nginx holds them all back, distribution fetches 500 times
		}
		most = m
		u.network.rate.Store(32 * mib)
		o.Path = s.blob(img.layers[1])
		_, m, err = s.under(ctx, o)
		u.network.rate.Store(0)
		if err != nil {
			return err
		}
		row(name, "500 streams, filling", m)
		if m.RSS > most.RSS {
			most = m
		}
	}
	b.tables = append(b.tables, t)
	b.judge(still.RSS <= 30*mib, "resident memory, idle", "30 MiB", mebibytes(still.RSS))
	b.judge(most.RSS <= 100*mib, "resident memory, 500 streams", "100 MiB", mebibytes(most.RSS))
	return nil
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
