package main

import (
	"context"
	"fmt"
	"time"
)

// pullCase is one kind of upstream that an image comes from.
type pullCase struct {
	what    string
	secure  bool  // the upstream offers HTTP/2 over TLS
	rate    int64 // of each connection, 0 for as fast as it goes
	servers []string

	// most is how long sidemirror may take, as a multiple of direct.
	most   float64
	figure string
}

var pullCases = []pullCase{
	{"fast connections", false, 0, []string{direct, nginxCache, registryPull, sidemirror}, 0.6, "cold pull of a 20-layer image, upstream 50 ms away"},
	{"16 MiB/s each, HTTP/2", true, connectionRate, []string{direct, sidemirror}, 1.05, "the same, 16 MiB/s a connection, upstream offers HTTP/2"},
}

// pull is a whole image, cold and warm, from an upstream far away.
func (b *bench) pull(ctx context.Context) error {
	// A pull takes half a second and is cheap to do again, and its median must not be one of chance.
	rounds := 2*b.rounds() - 1
	var images []*image
	for i := range rounds {
		images = append(images, newImage(fmt.Sprintf("v%d", i), 20, 2*mib))
	}
	t := table{
		title: "Image of 20 layers of 2 MiB from afar",
		note: fmt.Sprintf("containerd's own resolver and fetcher: HEAD of the tag, GET of the manifest by digest, the configuration and the layers, %d at once. "+
			"The upstream is %v away; requests and bytes are those that it saw. HTTP/2 is what it offers; containerd does not take it. "+
			"Medians of %d pulls, a new image each; the most requests, bytes and connections of any. Warm is the second pull of each.",
			atOnce, latency, rounds),
		head: []string{"upstream", "through", "cold", "× direct", "requests", "from upstream", "connections", "warm", "requests"},
	}
	for _, c := range pullCases {
		base := time.Duration(0)
		for _, name := range c.servers {
			cold, warm, err := b.pullThrough(ctx, name, c, images)
			if err != nil {
				return fmt.Errorf("%s: %w", c.what, err)
			}
			took := median(cold.took)
			if name == direct {
				base = took
			}
			ratio := float64(took) / float64(base)
			row := []string{c.what, name, seconds(took), fmt.Sprintf("%.2f", ratio), fmt.Sprint(cold.requests), mebibytes(cold.fetched), fmt.Sprint(cold.connections), "", ""}
			if name != direct {
				row[7], row[8] = seconds(median(warm.took)), fmt.Sprint(warm.requests)
			}
			t.rows = append(t.rows, row)
			if name == sidemirror {
				b.judge(ratio <= c.most, c.figure, fmt.Sprintf("%g × direct", c.most), fmt.Sprintf("%.2f × (%s to %s)", ratio, seconds(took), seconds(base)))
				b.judgePulls(c, images[0], cold, warm)
			}
		}
	}
	b.tables = append(b.tables, t)
	return nil
}

// judgePulls judges what pulls through sidemirror cost upstream.
func (b *bench) judgePulls(c pullCase, img *image, cold, warm imagePulls) {
	var size int64
	for _, l := range img.layers {
		size += l.size
	}
	waste := float64(cold.fetched) / float64(size)
	b.judge(waste <= 1.01, c.figure+": bytes from upstream", "1.01 × its size", fmt.Sprintf("%.2f ×", waste))
	b.judge(warm.requests <= 1, c.figure+": warm", "≤ 1 upstream round trip in all", fmt.Sprintf("%d, in %s", warm.requests, seconds(median(warm.took))))
	b.judge(cold.connections <= 16, c.figure+": connections", "16", fmt.Sprint(cold.connections))
}

func (b *bench) pullThrough(ctx context.Context, name string, c pullCase, images []*image) (cold, warm imagePulls, err error) {
	u, s, stop, err := b.far(ctx, name, b.listener(c.secure), images...)
	if err != nil {
		return cold, warm, err
	}
	defer stop()
	u.network.rate.Store(c.rate)
	for _, img := range images {
		if err := cold.add(ctx, s, u, img); err != nil {
			return cold, warm, err
		}
		if name == direct {
			continue
		}
		if err := warm.add(ctx, s, u, img); err != nil {
			return cold, warm, err
		}
	}
	return cold, warm, nil
}

// imagePulls are several pulls: how long each took, and the most that one cost upstream.
type imagePulls struct {
	took                           []time.Duration
	requests, fetched, connections int64
}

// add pulls an image once, and waits until the server asks the upstream for nothing more.
func (p *imagePulls) add(ctx context.Context, s *server, u *upstream, img *image) error {
	u.reset()
	a, err := runClient(ctx, order{Pull: &pullOrder{Server: s.origin(), CA: s.ca, Tag: img.tag}})
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if err := u.settle(ctx); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	p.took = append(p.took, time.Duration(a.Seconds*float64(time.Second)))
	p.requests = max(p.requests, u.requests.Load())
	p.fetched = max(p.fetched, u.sent.Load())
	p.connections = max(p.connections, u.network.most.Load())
	return nil
}
