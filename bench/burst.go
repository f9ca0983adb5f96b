package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// upstreamRate is the rate of each transfer from the upstream, in bytes/s. A 256 MiB blob takes a
// second, so clients that ask meanwhile ask for something that is not complete yet.
const upstreamRate = 256 * mib

// burst is one cold burst.
type burst struct {
	transfers  float64       // how often the upstream sent each byte, in the mean
	last       time.Duration // the last client's last byte
	first, gap time.Duration // the worst client's
}

// coldBurst has many clients ask at the same time for a blob that is not stored yet.
func (b *bench) coldBurst(ctx context.Context) error {
	t := table{
		title: "Cold burst",
		note: fmt.Sprintf("Clients that ask at the same time for one blob of 256 MiB that is not stored yet, from an upstream that gives each transfer %d MiB/s. "+
			"Medians of %d rounds, a new blob each; transfers are the upstream's bytes divided by the blob's; transfers, first byte and longest wait are the worst of all rounds and clients.", upstreamRate/mib, b.rounds()),
		head: []string{"server", "clients", "transfers", "last byte", "latest first byte", "longest wait for a byte"},
	}
	for _, clients := range []int{8, 100} {
		if err := b.burstOf(ctx, clients, &t); err != nil {
			return err
		}
	}
	b.tables = append(b.tables, t)
	return nil
}

func (b *bench) burstOf(ctx context.Context, clients int, t *table) error {
	names := []string{nginxCache, sidemirror, registryPull}
	rounds := b.rounds()
	if b.quick && clients > 8 {
		rounds = 1
	}
	images := newImages(rounds, blobSize)
	f, err := b.fleet(ctx, images, names...)
	if err != nil {
		return err
	}
	defer f.stop()
	all := map[string][]burst{}
	for i, img := range images {
		for _, name := range names {
			if name == registryPull && clients > 8 && (i > 0 || b.quick) {
				continue // its hundred transfers take twenty seconds, and once is enough to know
			}
			one, err := f.burst(ctx, name, img, clients)
			if err != nil {
				return err
			}
			all[name] = append(all[name], one)
		}
	}
	last := map[string]time.Duration{}
	worst := map[string]burst{}
	for _, name := range names {
		if len(all[name]) == 0 {
			continue
		}
		var lasts []time.Duration
		var w burst
		for _, one := range all[name] {
			lasts = append(lasts, one.last)
			w.transfers = max(w.transfers, one.transfers)
			w.first, w.gap = max(w.first, one.first), max(w.gap, one.gap)
		}
		last[name], worst[name] = median(lasts), w
		t.rows = append(t.rows, []string{name, fmt.Sprint(clients), fmt.Sprintf("%.2f", w.transfers), seconds(last[name]), millis(w.first), millis(w.gap)})
	}
	ours, theirs := last[sidemirror], last[nginxCache]
	figure := fmt.Sprintf("cold burst, %d clients", clients)
	b.judge(worst[sidemirror].transfers <= 1.01, figure, "1 upstream transfer of each byte, and 1 %", fmt.Sprintf("%.2f", worst[sidemirror].transfers))
	b.judge(ours <= theirs, figure, "last byte no later than nginx proxy_cache_lock", fmt.Sprintf("%.2f × (%s to %s)", float64(ours)/float64(theirs), seconds(ours), seconds(theirs)))
	b.judge(worst[sidemirror].first < idle, figure, fmt.Sprintf("no client waits for the fill: first byte within %v", idle), millis(worst[sidemirror].first))
	return nil
}

// idle is how late a client may have its first byte: until the upstream has sent half. That leaves a
// hundred clients time to share two cores. Later waits are shown and not judged: all cores are busy.
const idle = time.Second * blobSize / upstreamRate / 2

func (f *fleet) burst(ctx context.Context, name string, img *image, clients int) (burst, error) {
	s, u := f.servers[name], f.upstreams[name]
	if err := s.fetch(ctx, s.path("manifests", img.manifest.digest), img.manifest); err != nil {
		return burst{}, err
	}
	u.reset()
	u.network.rate.Store(upstreamRate)
	a, err := runClient(ctx, order{Address: s.address, Path: s.blob(img.layers[0]), Clients: clients, Times: 1})
	u.network.rate.Store(0)
	if err != nil {
		return burst{}, err
	}
	if err := u.settle(ctx); err != nil {
		return burst{}, err
	}
	one := burst{transfers: float64(u.sent.Load()) / float64(img.layers[0].size)}
	one.last = a.last()
	for _, t := range a.Each {
		one.first, one.gap = max(one.first, t.First), max(one.gap, t.Gap)
	}
	// The clients have dropped what they got. This checks that it is right.
	return one, s.fetch(ctx, s.blob(img.layers[0]), img.layers[0])
}

// firstByte is how long a client waits for the first byte of a blob that is not stored.
func (b *bench) firstByte(ctx context.Context) error {
	const count = 30
	names := []string{nginxCache, sidemirror, registryPull}
	images := newImages(count, mib)
	f, err := b.fleet(ctx, images, names...)
	if err != nil {
		return err
	}
	defer f.stop()
	for _, img := range images {
		if err := f.warm(ctx, "manifests", img.manifest); err != nil {
			return err
		}
	}
	itself := f.upstreams[sidemirror].asServer()
	firsts := samples[time.Duration]{}
	wires := map[string]*wire{}
	for i, img := range images {
		for _, s := range []*server{itself, f.servers[nginxCache], f.servers[sidemirror], f.servers[registryPull]} {
			w := wires[s.name]
			if w == nil {
				if w, err = dial(ctx, s.address, 0); err != nil {
					return err
				}
				defer w.close()
				wires[s.name] = w
			}
			// The others may still write what they were asked for before.
			if err := pause(ctx, 20*time.Millisecond); err != nil {
				return err
			}
			t, _, err := w.get(s.blob(img.layers[0]), time.Now())
			if err != nil {
				return fmt.Errorf("%s, blob %d: %w", s.name, i, err)
			}
			firsts.add(s.name, t.First)
		}
	}
	t := table{
		title: "First byte of a cold blob",
		note:  fmt.Sprintf("%d blobs of 1 MiB, one each 20 ms on one connection; from the request to the body's first byte.", count),
		head:  []string{"server", "median", "worst", "median beyond the upstream's"},
	}
	base := median(firsts[direct])
	for _, name := range append([]string{direct}, names...) {
		m := median(firsts[name])
		t.rows = append(t.rows, []string{name, millis(m), millis(slices.Max(firsts[name])), millis(m - base)})
	}
	b.tables = append(b.tables, t)
	ours, theirs := median(firsts[sidemirror]), median(firsts[nginxCache])
	b.judge(float64(ours) <= 0.9*float64(theirs), "first byte of a cold blob", "0.9 × nginx proxy_cache",
		fmt.Sprintf("%.2f × (%s to %s)", float64(ours)/float64(theirs), millis(ours), millis(theirs)))
	return nil
}
