package main

import (
	"context"
	"fmt"
)

// blobSize is that of a big layer.
const blobSize = 256 * mib

// warmBlob is throughput, and processor time per GiB.
func (b *bench) warmBlob(ctx context.Context) error {
	names := []string{nginxStatic, nginxCache, registry, registryPull, sidemirror}
	img := newImage("v1", 1, blobSize)
	f, err := b.fleet(ctx, []*image{img}, names...)
	if err != nil {
		return err
	}
	defer f.stop()
	// As an engine does, which knows of the blob from the manifest.
	if err := f.warm(ctx, "manifests", img.manifest); err != nil {
		return err
	}
	if err := f.warm(ctx, "blobs", img.layers[0]); err != nil {
		return err
	}
	o := order{Clients: 4, Times: 8}
	if b.quick {
		o.Times = 4
	}
	speed, cost := samples[float64]{}, samples[float64]{}
	for range b.rounds() {
		for _, name := range names {
			s := f.servers[name]
			o.Address, o.Path = s.address, s.blob(img.layers[0])
			before, err := s.cpu()
			if err != nil {
				return err
			}
			a, err := runClient(ctx, o)
			if err != nil {
				return err
			}
			after, err := s.cpu()
			if err != nil {
				return err
			}
			gib := float64(a.Bytes) / (1 << 30)
			speed.add(name, gib/a.Seconds)
			cost.add(name, (after-before).Seconds()/gib)
		}
	}
	t := table{
		title: "Warm blob",
		note: fmt.Sprintf("One blob of 256 MiB, %d connections, %d GETs on each; medians of %d rounds. CPU is utime and stime of all the server's processes.",
			o.Clients, o.Times, b.rounds()),
		head: []string{"server", "GiB/s", "CPU s/GiB"},
	}
	for _, name := range names {
		t.rows = append(t.rows, []string{name, fmt.Sprintf("%.2f", median(speed[name])), fmt.Sprintf("%.3f", median(cost[name]))})
	}
	b.tables = append(b.tables, t)
	ours, static, dist := median(cost[sidemirror]), median(cost[nginxStatic]), median(cost[registry])
	b.judge(ours <= 1.25*static, "warm blob, server CPU s/GiB", "1.25 × nginx static", fmt.Sprintf("%.2f × (%.3f to %.3f)", ours/static, ours, static))
	b.judge(ours < dist, "warm blob, server CPU s/GiB", "below distribution", fmt.Sprintf("%.2f × (%.3f to %.3f)", ours/dist, ours, dist))
	return nil
}
