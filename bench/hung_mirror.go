package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

// hungMirror is by how much longer pulls take if the first of two upstreams accepts connections and
// never responds. It goes on for long enough for the mirror to be tried again in the background.
func (b *bench) hungMirror(ctx context.Context) (err error) {
	const count, every = 30, 500 * time.Millisecond
	hung, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0") // whose connections nothing reads
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hung.Close()) }()
	images := newImages(count, mib)
	took := samples[time.Duration]{}
	const alone, behind = "the registry alone", "a hung mirror first"
	for name, mirrors := range map[string][]string{alone: nil, behind: {"http://" + hung.Addr().String()}} {
		if took[name], err = b.pullsBehind(ctx, mirrors, images, every); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	t := table{
		title: "A hung mirror",
		note:  fmt.Sprintf("%d pulls of an image with one layer of 1 MiB, one each %s, by sidemirror with an upstream that responds at once; with a mirror before it that accepts connections and never responds.", count, every),
		head:  []string{"upstreams", "first pull", "median of the others", "worst of the others"},
	}
	for _, name := range []string{alone, behind} {
		rest := took[name][1:]
		t.rows = append(t.rows, []string{name, millis(took[name][0]), millis(median(rest)), millis(slices.Max(rest))})
	}
	b.tables = append(b.tables, t)
	// A mirror that is tried again while a client waits would show in the worst alone.
	cost := max(median(took[behind][1:])-median(took[alone][1:]), slices.Max(took[behind][1:])-slices.Max(took[alone][1:]))
	b.judge(cost <= 50*time.Millisecond, "hung mirror, pulls after the first: median and worst", "50 ms longer than without it", millis(cost))
	return nil
}

// pullsBehind pulls images one after the other through a sidemirror with an upstream that has them, and
// with mirrors before it. It returns how long each took.
func (b *bench) pullsBehind(ctx context.Context, mirrors []string, images []*image, every time.Duration) (all []time.Duration, err error) {
	u, err := newUpstream()
	if err != nil {
		return nil, err
	}
	defer u.close()
	u.add(images...)
	u.mirrors = mirrors
	s, err := b.start(ctx, sidemirror, u)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	for _, img := range images {
		begun := time.Now()
		if err := s.fetch(ctx, s.path("manifests", img.tag), img.manifest); err != nil {
			return nil, err
		}
		for _, part := range append([]*blob{img.config}, img.layers...) {
			if err := s.fetch(ctx, s.blob(part), part); err != nil {
				return nil, err
			}
		}
		all = append(all, time.Since(begun))
		if err := pause(ctx, every); err != nil {
			return nil, err
		}
	}
	return all, nil
}
