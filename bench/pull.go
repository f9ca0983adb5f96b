package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
)

const (
	// latency is what each answer of the upstream is late.
	latency = 50 * time.Millisecond

	// parallel is how many layers are fetched at once: Docker's max-concurrent-downloads
	// and containerd's default.
	parallel = 3
)

// pull is a whole image, cold and warm, from an upstream far away.
func (b *bench) pull(ctx context.Context) error {
	img := newImage("v1", 20, 2*mib)
	t := table{
		title: "Image of 20 layers of 2 MiB, the upstream 50 ms away",
		note: fmt.Sprintf("HEAD of the tag, GET of the manifest by digest, the configuration, the layers, %d at once. toxiproxy holds each answer of the upstream back by %v; "+
			"requests are those that the upstream saw. Warm: medians of %d pulls, the most requests of any.", parallel, latency, b.rounds()),
		head: []string{"through", "cold", "requests", "warm", "requests"},
	}
	for _, name := range []string{"nothing", nginxCache, registryPull, sidemirror} {
		if err := b.pullThrough(ctx, name, img, &t); err != nil {
			return err
		}
	}
	b.tables = append(b.tables, t)
	return nil
}

func (b *bench) pullThrough(ctx context.Context, name string, img *image, t *table) error {
	u, err := newUpstream()
	if err != nil {
		return err
	}
	defer u.close()
	u.add(img)
	far, stop, err := farAway(u.address)
	if err != nil {
		return err
	}
	defer stop()
	s := &server{process: &process{name: name}, address: far}
	if name != "nothing" {
		if s, err = b.start(ctx, name, far); err != nil {
			return err
		}
		defer s.stop()
	}
	u.requests.Store(0)
	cold, err := s.pull(ctx, img)
	if err != nil {
		return err
	}
	coldAsked := u.requests.Load()
	if name == "nothing" {
		t.rows = append(t.rows, []string{name, seconds(cold), fmt.Sprint(coldAsked), "", ""})
		return nil
	}
	var warm []time.Duration
	var asked int64
	for range b.rounds() {
		// What the server still does for the pull before, it does now.
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
		u.requests.Store(0)
		took, err := s.pull(ctx, img)
		if err != nil {
			return err
		}
		warm = append(warm, took)
		asked = max(asked, u.requests.Load())
	}
	t.rows = append(t.rows, []string{name, seconds(cold), fmt.Sprint(coldAsked), seconds(median(warm)), fmt.Sprint(asked)})
	if name == sidemirror {
		b.judge(asked <= 1, "warm pull of a 20-layer image, upstream 50 ms away", "≤ 1 upstream round trip in all",
			fmt.Sprintf("%d, in %s", asked, seconds(median(warm))))
	}
	return nil
}

// farAway puts latency before the registry at address.
func farAway(address string) (string, func(), error) {
	logger := zerolog.Nop()
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), logger)
	p := toxiproxy.NewProxy(api, "far", "127.0.0.1:0", address)
	if err := p.Start(); err != nil {
		return "", nil, fmt.Errorf("start toxiproxy: %w", err)
	}
	toxic := fmt.Sprintf(`{"type":"latency","stream":"downstream","attributes":{"latency":%d}}`, latency.Milliseconds())
	if _, err := p.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
		p.Stop()
		return "", nil, fmt.Errorf("make toxiproxy late: %w", err)
	}
	return p.Listen, p.Stop, nil
}

// pull fetches an image as containerd does, and throws it away.
func (s *server) pull(ctx context.Context, img *image) (time.Duration, error) {
	const accept = "Accept: " + manifestType + "\r\n"
	start := time.Now()
	w, err := dial(ctx, s.address, 0)
	if err != nil {
		return 0, err
	}
	defer w.close()
	digest, err := w.head(s.path("manifests", img.tag), accept)
	if err != nil {
		return 0, fmt.Errorf("%s: HEAD of the tag: %w", s.name, err)
	}
	if digest != img.manifest.digest {
		return 0, fmt.Errorf("%s: the tag means %q, and should mean %s", s.name, digest, img.manifest.digest)
	}
	if err := s.pullOne(w, "manifests", img.manifest, accept); err != nil {
		return 0, err
	}
	if err := s.pullOne(w, "blobs", img.config, ""); err != nil {
		return 0, err
	}
	layers := make(chan *blob, len(img.layers))
	for _, l := range img.layers {
		layers <- l
	}
	close(layers)
	work, ctx := errgroup.WithContext(ctx)
	for i := range parallel {
		work.Go(func() error {
			own := w
			if i > 0 {
				var err error
				if own, err = dial(ctx, s.address, 0); err != nil {
					return err
				}
				defer own.close()
			}
			for l := range layers {
				if err := s.pullOne(own, "blobs", l, ""); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = work.Wait()
	return time.Since(start), err
}

func (s *server) pullOne(w *wire, kind string, want *blob, header string) error {
	_, n, err := w.get(s.path(kind, want.digest), header, time.Now())
	if err == nil && n != want.size {
		err = fmt.Errorf("%d bytes of %d", n, want.size)
	}
	if err != nil {
		return fmt.Errorf("%s: GET %s %s: %w", s.name, kind, want.digest, err)
	}
	return nil
}
