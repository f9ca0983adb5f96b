package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// objects is an object storage for hosts that share blobs.
type objects struct {
	url    string
	server *http.Server
	done   chan struct{}
}

func newObjects(ctx context.Context) (*objects, error) {
	const bucket = "layers"
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	backend := s3mem.New()
	if err := backend.CreateBucket(bucket); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	o := &objects{
		url:    "s3://" + bucket + "/bench?region=bench&endpoint=http://" + l.Addr().String(),
		server: &http.Server{Handler: gofakes3.New(backend).Server(), ReadHeaderTimeout: time.Minute},
		done:   make(chan struct{}),
	}
	go func() {
		defer close(o.done)
		_ = o.server.Serve(l) // ErrServerClosed
	}()
	return o, nil
}

func (o *objects) close() {
	_ = o.server.Close()
	<-o.done
}

// herd is what hosts gain that start at once and share an object storage: each pulls the same blob over
// a link to the registry that is the site's, and that all of them use. It is compared with as many
// clients without sidemirror.
func (b *bench) herd(ctx context.Context) error {
	const hosts, size, link = 20, 256 * mib, 128 * mib // bytes, and bytes/s
	img := newImage("v1", 1, size)
	u, err := newUpstream()
	if err != nil {
		return err
	}
	defer u.close()
	u.add(img)
	u.network.link.rate.Store(link)
	store, err := newObjects(ctx)
	if err != nil {
		return err
	}
	defer store.close()
	u.store = store.url

	direct := slices.Repeat([]*server{{process: &process{name: "a client"}, address: u.address}}, hosts)
	alone, aloneSent, err := u.pulledAtOnce(ctx, direct, img.layers[0])
	if err != nil {
		return err
	}
	var servers []*server
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	for range hosts {
		s, err := b.start(ctx, sidemirror, u)
		if err != nil {
			return err
		}
		servers = append(servers, s)
	}
	shared, sharedSent, err := u.pulledAtOnce(ctx, servers, img.layers[0])
	if err != nil {
		return err
	}
	row := func(name string, took []time.Duration, sent float64) []string {
		return []string{name, seconds(slices.Min(took)), seconds(median(took)), seconds(slices.Max(took)), fmt.Sprintf("%.2f", sent)}
	}
	b.tables = append(b.tables, table{
		title: "Hosts that start at once and share a store",
		note: fmt.Sprintf("%d hosts, with a cache each, pull one cold blob of %d MiB at once; all share a link of %d MiB/s to the registry, and an object storage that is not behind it (gofakes3 in memory). Once.",
			hosts, size/mib, link/mib),
		head: []string{"", "fastest", "median", "slowest", "blobs that the registry sent"},
		rows: [][]string{row("clients alone", alone, aloneSent), row("sidemirror on each host", shared, sharedSent)},
	})
	b.judge(sharedSent <= 3, "hosts that share a store, blobs that the registry sends", "3", fmt.Sprintf("%.2f", sharedSent))
	worst := float64(slices.Max(shared)) / float64(slices.Max(alone))
	b.judge(worst <= 1.1, "hosts that share a store, the slowest", "1.1 × the slowest without", fmt.Sprintf("%.2f ×", worst))
	return nil
}

// pulledAtOnce lets each server pull a blob at the same time. It returns how long each took, and how
// many blobs the upstream has sent.
func (u *upstream) pulledAtOnce(ctx context.Context, servers []*server, what *blob) (took []time.Duration, sent float64, err error) {
	u.reset()
	took = make([]time.Duration, len(servers))
	errs := make([]error, len(servers))
	var all sync.WaitGroup
	begun := time.Now()
	for i, s := range servers {
		all.Go(func() {
			errs[i] = s.fetch(ctx, s.blob(what), what)
			took[i] = time.Since(begun)
		})
	}
	all.Wait()
	return took, float64(u.sent.Load()) / float64(what.size), errors.Join(errs...)
}
