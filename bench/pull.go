package main

import (
	"context"
	"fmt"
	"time"
)

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
			"The upstream is %v away; requests and bytes are those that it saw. Medians of %d pulls, a new image each; the most requests and bytes of any. Warm is the second pull of each.",
			atOnce, latency, rounds),
		head: []string{"through", "cold", "requests", "from upstream", "warm", "requests"},
	}
	cold := map[string]time.Duration{}
	for _, name := range []string{direct, nginxCache, registryPull, sidemirror} {
		took, err := b.pullThrough(ctx, name, images, &t)
		if err != nil {
			return err
		}
		cold[name] = took
	}
	b.tables = append(b.tables, t)
	ours, without := cold[sidemirror], cold[direct]
	b.judge(float64(ours) <= 0.6*float64(without), "cold pull of a 20-layer image, upstream 50 ms away", "0.6 × direct",
		fmt.Sprintf("%.2f × (%s to %s)", float64(ours)/float64(without), seconds(ours), seconds(without)))
	return nil
}

func (b *bench) pullThrough(ctx context.Context, name string, images []*image, t *table) (time.Duration, error) {
	u, s, stop, err := b.far(ctx, name, newUpstream, images...)
	if err != nil {
		return 0, err
	}
	defer stop()
	var cold, warm imagePulls
	for _, img := range images {
		if err := cold.add(ctx, s, u, img); err != nil {
			return 0, err
		}
		if name == direct {
			continue
		}
		if err := warm.add(ctx, s, u, img); err != nil {
			return 0, err
		}
	}
	row := []string{name, seconds(median(cold.took)), fmt.Sprint(cold.requests), mebibytes(cold.fetched), "", ""}
	if name != direct {
		row[4], row[5] = seconds(median(warm.took)), fmt.Sprint(warm.requests)
	}
	t.rows = append(t.rows, row)
	if name == sidemirror {
		b.judge(warm.requests <= 1, "warm pull of a 20-layer image, upstream 50 ms away", "≤ 1 upstream round trip in all",
			fmt.Sprintf("%d, in %s", warm.requests, seconds(median(warm.took))))
		var size int64
		for _, l := range images[0].layers {
			size += l.size
		}
		b.judge(float64(cold.fetched) <= 1.01*float64(size), "cold pull of a 20-layer image, bytes from upstream", "1.01 × its size",
			fmt.Sprintf("%.2f ×", float64(cold.fetched)/float64(size)))
	}
	return median(cold.took), nil
}

// imagePulls are several pulls: how long each took, and the most that one cost upstream.
type imagePulls struct {
	took              []time.Duration
	requests, fetched int64
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
	return nil
}
