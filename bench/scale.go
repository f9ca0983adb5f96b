package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// growingClients is what a client costs when there are few and when there are many.
func (b *bench) growingClients(ctx context.Context) error {
	const size = 16 * mib
	names := []string{nginxCache, sidemirror}
	counts := []int{1, 10, 100, 1000}
	images := newImages(len(counts), size)
	f, err := b.fleet(ctx, images, names...)
	if err != nil {
		return err
	}
	defer f.stop()
	t := table{
		title: "Clients",
		note: "Clients that ask at the same time for one blob of 16 MiB, which is not stored the first time. The last byte is the last client's. " +
			"CPU is the server's, of each client, in the second round. Memory is the most that was resident.",
		head: []string{"clients", "server", "transfers", "last byte, cold", "last byte, warm", "CPU ms/client", "resident"},
	}
	cost := map[int]float64{}
	for i, clients := range counts {
		for _, name := range names {
			one, err := f.clients(ctx, name, images[i], clients)
			if err != nil {
				return err
			}
			t.rows = append(t.rows, []string{
				fmt.Sprint(clients), name, fmt.Sprint(one.transfers), seconds(one.cold), seconds(one.warm),
				fmt.Sprintf("%.2f", one.cpu.Seconds()*1000/float64(clients)), mebibytes(one.resident),
			})
			if name == sidemirror {
				cost[clients] = one.cpu.Seconds() / float64(clients)
				b.judge(one.transfers == 1, fmt.Sprintf("%d clients of a cold blob", clients), "1 upstream transfer of each byte", fmt.Sprintf("%d × its size", one.transfers))
			}
		}
	}
	b.tables = append(b.tables, t)
	few, many := cost[100], cost[1000]
	b.judge(many <= 1.5*few, "server CPU of each of 1,000 clients", "1.5 × that of each of 100", fmt.Sprintf("%.2f × (%.2f ms to %.2f ms)", many/few, many*1000, few*1000))
	return nil
}

type clientsFigures struct {
	transfers  int64 // how often the upstream sent the blob, in whole
	cold, warm time.Duration
	cpu        time.Duration
	resident   int64
}

func (f *fleet) clients(ctx context.Context, name string, img *image, clients int) (clientsFigures, error) {
	var one clientsFigures
	s, u := f.servers[name], f.upstreams[name]
	if err := s.fetch(ctx, s.path("manifests", img.manifest.digest), img.manifest); err != nil {
		return one, err
	}
	layer := img.layers[0]
	o := order{Address: s.address, Path: s.blob(layer), Clients: clients, Times: 1}
	u.reset()
	cold, m, err := s.under(ctx, o)
	if err != nil {
		return one, err
	}
	if err := u.settle(ctx); err != nil {
		return one, err
	}
	one.transfers = (u.sent.Load() + layer.size/2) / layer.size
	one.cold, one.resident = cold.last(), m.RSS
	before, err := s.cpu()
	if err != nil {
		return one, err
	}
	warm, m, err := s.under(ctx, o)
	if err != nil {
		return one, err
	}
	after, err := s.cpu()
	one.warm, one.cpu, one.resident = warm.last(), after-before, max(one.resident, m.RSS)
	return one, err
}

// last is when the last client had its last byte.
func (a account) last() time.Duration {
	var last time.Duration
	for _, t := range a.Each {
		last = max(last, t.Last)
	}
	return last
}

// growingBlobs is what small and large blobs cost.
func (b *bench) growingBlobs(ctx context.Context) error {
	sizes := []struct {
		size  int64
		count int
	}{{1 << 10, 20}, {32 << 10, 20}, {mib, 20}, {32 * mib, 5}, {1 << 30, 1}, {8 << 30, 1}}
	if b.quick {
		sizes = sizes[:4]
	}
	t := table{
		title: "Blob sizes",
		note: fmt.Sprintf("One client, and blobs that are not stored the first time; the upstream's link carries %d MiB/s. Medians of 20 blobs up to 1 MiB, of 5 of 32 MiB, one of each larger size. "+
			"CPU is the server's, cold. Memory is the most that was resident.", storeRate/mib),
		head: []string{"size", "through", "cold", "× direct", "warm", "CPU s/GiB", "resident"},
	}
	for _, one := range sizes {
		images := newImages(one.count, one.size)
		base := time.Duration(0)
		for _, name := range []string{direct, nginxCache, sidemirror} {
			f, err := b.blobsThrough(ctx, name, images)
			if err != nil {
				return fmt.Errorf("%d bytes: %w", one.size, err)
			}
			if name == direct {
				base = f.cold
			}
			row := []string{binarySize(one.size), name, millis(f.cold), fmt.Sprintf("%.2f", float64(f.cold)/float64(base)), "", "", ""}
			if name != direct {
				row[4], row[6] = millis(f.warm), mebibytes(f.resident)
				if gib := float64(one.size*int64(one.count)) / (1 << 30); one.size >= 32*mib { // CPU time has a resolution of 10 ms
					row[5] = fmt.Sprintf("%.2f", f.cpu.Seconds()/gib)
				}
			}
			t.rows = append(t.rows, row)
			if name == sidemirror && one.size >= 32*mib {
				b.judge(float64(f.cold) <= 1.05*float64(base), "cold blob of "+binarySize(one.size)+", saturated link", "1.05 × direct",
					fmt.Sprintf("%.2f × (%s to %s)", float64(f.cold)/float64(base), seconds(f.cold), seconds(base)))
				b.judge(f.resident <= 100*mib, "resident memory, blob of "+binarySize(one.size), "100 MiB", mebibytes(f.resident))
			}
		}
	}
	b.tables = append(b.tables, t)
	return nil
}

// storeRate is a link that a small machine's disk can follow, in bytes/s.
const storeRate = 64 * mib

type blobFigures struct {
	cold, warm time.Duration // of one blob
	cpu        time.Duration // of all, cold
	resident   int64
}

func (b *bench) blobsThrough(ctx context.Context, name string, images []*image) (blobFigures, error) {
	var f blobFigures
	u, s, stop, err := b.far(ctx, name, newUpstream, images...)
	if err != nil {
		return f, err
	}
	defer func() { // gigabytes do not wait for the end of the run
		stop()
		_ = os.RemoveAll(s.dir)
	}()
	u.network.latency.Store(0)
	u.network.link.rate.Store(storeRate)
	ask := func() (time.Duration, error) {
		var took []time.Duration
		for _, img := range images {
			o := order{Address: s.address, Path: s.blob(img.layers[0]), Clients: 1, Times: 1}
			if name == direct {
				a, err := runClient(ctx, o)
				if err != nil {
					return 0, err
				}
				took = append(took, a.last())
				continue
			}
			a, m, err := s.under(ctx, o)
			if err != nil {
				return 0, err
			}
			f.resident = max(f.resident, m.RSS)
			took = append(took, a.last())
		}
		return median(took), u.settle(ctx)
	}
	if name == direct {
		f.cold, err = ask()
		return f, err
	}
	for _, img := range images {
		if err := s.fetch(ctx, s.path("manifests", img.manifest.digest), img.manifest); err != nil {
			return f, err
		}
	}
	before, err := s.cpu()
	if err != nil {
		return f, err
	}
	if f.cold, err = ask(); err != nil {
		return f, err
	}
	after, err := s.cpu()
	if err != nil {
		return f, err
	}
	f.cpu = after - before
	f.warm, err = ask()
	return f, err
}

// growingImages is what images of few and of many layers cost.
func (b *bench) growingImages(ctx context.Context) error {
	counts := []int{1, 10, 100, 1000}
	if b.quick {
		counts = counts[:3]
	}
	t := table{
		title: "Images of many layers",
		note:  fmt.Sprintf("Layers of 16 KiB, pulled by containerd's own resolver and fetcher, %d at once; the upstream is %v away.", atOnce, latency),
		head:  []string{"layers", "through", "cold", "× direct", "requests", "warm", "ms/layer", "requests"},
	}
	warm := map[int]time.Duration{}
	for _, layers := range counts {
		img := newImage("v1", layers, 16<<10)
		base := time.Duration(0)
		for _, name := range []string{direct, nginxCache, sidemirror} {
			one, two, err := b.pullTwice(ctx, name, img)
			if err != nil {
				return err
			}
			cold := one.took[0]
			if name == direct {
				base = cold
			}
			ratio := float64(cold) / float64(base)
			row := []string{fmt.Sprint(layers), name, seconds(cold), fmt.Sprintf("%.2f", ratio), fmt.Sprint(one.requests), "", "", ""}
			if name != direct {
				again := two.took[0]
				row[5], row[6], row[7] = seconds(again), fmt.Sprintf("%.2f", again.Seconds()*1000/float64(layers)), fmt.Sprint(two.requests)
				warm[layers] = again
			}
			t.rows = append(t.rows, row)
			if name == sidemirror {
				b.judge(ratio <= 1.05, fmt.Sprintf("cold image of %d layers", layers), "1.05 × direct", fmt.Sprintf("%.2f × (%s to %s)", ratio, seconds(cold), seconds(base)))
			}
		}
	}
	b.tables = append(b.tables, t)
	if !b.quick {
		few, many := warm[100].Seconds()*10, warm[1000].Seconds()
		b.judge(many <= 1.5*few, "warm pull, each of 1,000 layers", "1.5 × each of 100", fmt.Sprintf("%.2f × (%.2f ms to %.2f ms)", many/few, many, few))
	}
	return nil
}

// pullTwice pulls an image cold and warm.
func (b *bench) pullTwice(ctx context.Context, name string, img *image) (cold, warm imagePulls, err error) {
	u, s, stop, err := b.far(ctx, name, newUpstream, img)
	if err != nil {
		return cold, warm, err
	}
	defer stop()
	if err := cold.add(ctx, s, u, img); err != nil {
		return cold, warm, err
	}
	if name != direct {
		err = warm.add(ctx, s, u, img)
	}
	return cold, warm, err
}

// binarySize returns a size in whole units.
func binarySize(n int64) string {
	for _, unit := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", mib}, {"KiB", 1 << 10}} {
		if n >= unit.size {
			return fmt.Sprintf("%d %s", n/unit.size, unit.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
