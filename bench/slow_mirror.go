package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// slowMirrors are the ways in which the first of two upstreams is slow. Each has everything and fails
// nothing.
var slowMirrors = []struct {
	name string
	late func(r *http.Request, n int64) time.Duration // the n-th request waits so long
	rate int64                                        // of its link, in bytes/s; 0: as fast as it goes
}{
	{"300 ms late", func(*http.Request, int64) time.Duration { return 300 * time.Millisecond }, 0},
	{"2 s late", func(*http.Request, int64) time.Duration { return 2 * time.Second }, 0},
	{"300 ms late for blobs", func(r *http.Request, _ int64) time.Duration {
		return map[bool]time.Duration{true: 300 * time.Millisecond}[strings.Contains(r.URL.Path, "/blobs/")]
	}, 0},
	{"300 ms late each other time", func(_ *http.Request, n int64) time.Duration { return time.Duration(n%2) * 300 * time.Millisecond }, 0},
	{"50 KB/s", nil, 50_000},
}

// slowMirror is by how much longer pulls take if the first of two upstreams is slow. It goes on for long
// enough for the mirror to be tried again.
func (b *bench) slowMirror(ctx context.Context) error {
	count, every := 15, time.Second
	if b.quick {
		count = 4
	}
	const layers, size = 20, 100_000
	t := table{
		title: "A slow mirror",
		note: fmt.Sprintf("%d pulls of an image with %d layers of %d KB, 4 at a time, one pull each %s, by sidemirror with an upstream 5 ms away that sends 50 MB/s; with a mirror before it that has everything, nearer, and is slow.",
			count, layers, size/1000, every),
		head: []string{"mirror", "first pull", "median of the others", "worst of the others", "requests to the mirror", "and to the upstream"},
	}
	var base []time.Duration
	for i := -1; i < len(slowMirrors); i++ {
		mirror, err := newUpstream()
		if err != nil {
			return err
		}
		defer mirror.close()
		name, mirrors := "none", []string(nil)
		if i >= 0 {
			var n atomic.Int64
			name, mirrors = slowMirrors[i].name, []string{"http://" + mirror.address}
			mirror.network.link.rate.Store(slowMirrors[i].rate)
			if late := slowMirrors[i].late; late != nil {
				mirror.late = func(r *http.Request) time.Duration { return late(r, n.Add(1)) }
			}
		}
		var images []*image
		for j := range count {
			images = append(images, newImage(fmt.Sprintf("v%d", j), layers, size))
		}
		mirror.add(images...)
		took, requests, err := b.pullsFrom(ctx, mirrors, images, every)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		rest := took[1:]
		t.rows = append(t.rows, []string{name, millis(took[0]), millis(median(rest)), millis(slices.Max(rest)), fmt.Sprint(mirror.requests.Load()), fmt.Sprint(requests)})
		if base == nil {
			base = took
			continue
		}
		b.judge(took[0]-base[0] <= 2*time.Second, "a mirror that is "+name+", first pull", "2 s longer than without it", millis(took[0]-base[0]))
		cost := median(rest) - median(base[1:])
		b.judge(cost <= 50*time.Millisecond, "a mirror that is "+name+", pulls after the first", "50 ms longer than without it", millis(cost))
	}
	b.tables = append(b.tables, t)
	return nil
}

// pullsFrom pulls images one after the other through a sidemirror with mirrors and an upstream that is
// a little way off. It returns how long each took, and how many requests the upstream had.
func (b *bench) pullsFrom(ctx context.Context, mirrors []string, images []*image, every time.Duration) (all []time.Duration, requests int64, err error) {
	u, err := newUpstream()
	if err != nil {
		return nil, 0, err
	}
	defer u.close()
	u.add(images...)
	u.mirrors = mirrors
	u.network.latency.Store(int64(5 * time.Millisecond))
	u.network.rate.Store(50_000_000)
	s, err := b.start(ctx, sidemirror, u)
	if err != nil {
		return nil, 0, err
	}
	defer s.stop()
	for _, img := range images {
		begun := time.Now()
		if err := s.fetch(ctx, s.path("manifests", img.tag), img.manifest); err != nil {
			return nil, 0, err
		}
		work, working := errgroup.WithContext(ctx)
		work.SetLimit(4)
		for _, part := range append([]*blob{img.config}, img.layers...) {
			work.Go(func() error { return s.fetch(working, s.blob(part), part) })
		}
		if err := work.Wait(); err != nil {
			return nil, 0, err
		}
		all = append(all, time.Since(begun))
		if err := pause(ctx, every); err != nil {
			return nil, 0, err
		}
	}
	return all, u.requests.Load(), nil
}
