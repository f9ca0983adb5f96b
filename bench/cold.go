package main

import (
	"context"
	"fmt"
	"time"
)

const (
	// connectionRate is what a distant registry or a CDN gives one connection, in bytes/s. Eight of
	// them are well below what a small machine can move.
	connectionRate = 16 * mib

	// linkRate is that of a link that one connection saturates.
	linkRate = 64 * mib

	// parts is how many parts of a layer an engine fetches in parallel, where it does.
	parts = 8
)

// coldCase is one way in which a blob that is not stored comes in.
type coldCase struct {
	what    string
	secure  bool  // the upstream offers HTTP/2 over TLS
	rate    int64 // of each connection
	link    int64 // of all together
	parts   int   // that the engine fetches in parallel
	servers []string

	// most is how long sidemirror may take, as a multiple of direct.
	most   float64
	figure string
	want   string
}

func coldCases() []coldCase {
	return []coldCase{
		{
			what: "one request", rate: connectionRate, parts: 1,
			servers: []string{direct, nginxCache, registryPull, sidemirror},
			most:    1.0 / 5, figure: "cold blob, 16 MiB/s a connection, one request", want: "5 × faster than direct",
		},
		{
			what: "one request, HTTP/2", rate: connectionRate, parts: 1, secure: true,
			servers: []string{direct, sidemirror},
			most:    1.0 / 5, figure: "the same, upstream offers HTTP/2", want: "5 × faster than direct",
		},
		{
			what: "8 parts of 8 MiB", rate: connectionRate, parts: parts,
			servers: []string{direct, nginxCache, sidemirror},
			most:    1.15, figure: "cold blob, engine with 8 parts in parallel", want: "1.15 × direct",
		},
		{
			what: "8 parts, HTTP/2", rate: connectionRate, parts: parts, secure: true,
			servers: []string{direct, sidemirror},
			most:    1.15, figure: "the same, upstream offers HTTP/2", want: "1.15 × direct",
		},
		{
			what: "one request, saturated link", link: linkRate, parts: 1,
			servers: []string{direct, nginxCache, sidemirror},
			most:    1.05, figure: "cold blob, link saturated by one connection", want: "1.05 × direct",
		},
		{
			what: "8 parts, saturated link", link: linkRate, parts: parts,
			servers: []string{direct, sidemirror},
			most:    1.15, figure: "the same, engine with 8 parts in parallel", want: "1.15 × direct",
		},
	}
}

// coldFetch is one fetch of a cold blob.
type coldFetch struct {
	took        time.Duration
	fetched     int64 // from the upstream
	connections int64
}

// coldBlob is a blob that is not stored, from an upstream that gives each connection a part of the
// link, and from one of which a single connection can have all.
func (b *bench) coldBlob(ctx context.Context) error {
	size := int64(blobSize)
	if b.quick {
		size = 64 * mib
	}
	t := table{
		title: "Cold blob from afar",
		note: fmt.Sprintf("One blob of %s that is not stored, fetched and checked by containerd's own fetcher, in one request or in %d parts of %s in parallel. "+
			"The upstream is %v away and gives each connection %d MiB/s; where the link is saturated, all connections share %d MiB/s and one could have them all. "+
			"HTTP/2 is what the upstream offers over TLS; containerd does not take it. "+
			"Medians of %d rounds, a new blob each; where the pace of one connection sets the time there is one round. Bytes and connections are the most of any round.",
			mebibytes(size), parts, mebibytes(chunk), latency, connectionRate/mib, linkRate/mib, b.rounds()),
		head: []string{"how", "through", "time", "× direct", "from upstream", "connections"},
	}
	waste, connections := 0.0, int64(0)
	for _, c := range coldCases() {
		base := time.Duration(0)
		for _, name := range c.servers {
			all, err := b.coldFetches(ctx, c, name, size)
			if err != nil {
				return fmt.Errorf("%s: %w", c.what, err)
			}
			if name == direct {
				base = all.took
			}
			ratio := float64(all.took) / float64(base)
			t.rows = append(t.rows, []string{c.what, name, seconds(all.took), fmt.Sprintf("%.2f", ratio), mebibytes(all.fetched), fmt.Sprint(all.connections)})
			if name != sidemirror {
				continue
			}
			got := fmt.Sprintf("%.2f × (%s to %s)", ratio, seconds(all.took), seconds(base))
			if c.most < 1 {
				got = fmt.Sprintf("%.1f × (%s to %s)", 1/ratio, seconds(all.took), seconds(base))
			}
			b.judge(ratio <= c.most, c.figure, c.want, got)
			waste = max(waste, float64(all.fetched)/float64(size))
			connections = max(connections, all.connections)
		}
	}
	b.tables = append(b.tables, t)
	b.judge(waste <= 1.01, "cold blob, bytes from upstream, the worst of all these", "1.01 × its size", fmt.Sprintf("%.2f ×", waste))
	b.judge(connections <= 16, "connections to an upstream, the most of all these", "16", fmt.Sprint(connections))
	return nil
}

// coldFetches has the rounds of one server.
func (b *bench) coldFetches(ctx context.Context, c coldCase, name string, size int64) (coldFetch, error) {
	rounds := b.rounds()
	if oneConnection := c.parts == 1 && name != sidemirror || name == nginxCache; c.rate > 0 && oneConnection {
		rounds = 1 // the pace of the connection sets the time, within a hundredth
	}
	images := newImages(rounds, size)
	u, s, stop, err := b.far(ctx, name, b.listener(c.secure), images...)
	if err != nil {
		return coldFetch{}, err
	}
	defer stop()
	u.network.rate.Store(c.rate)
	u.network.link.rate.Store(c.link)
	var times []time.Duration
	var most coldFetch
	for _, img := range images {
		// As an engine does, which knows of the blob from the manifest.
		if name != direct {
			if err := s.fetch(ctx, s.path("manifests", img.manifest.digest), img.manifest); err != nil {
				return coldFetch{}, err
			}
		}
		layer := img.layers[0]
		u.reset()
		a, err := runClient(ctx, order{Pull: &pullOrder{Server: s.origin(), CA: s.ca, Digest: layer.digest, Size: layer.size, Parts: c.parts}})
		if err != nil {
			return coldFetch{}, fmt.Errorf("%s: %w", name, err)
		}
		if err := u.settle(ctx); err != nil {
			return coldFetch{}, fmt.Errorf("%s: %w", name, err)
		}
		times = append(times, time.Duration(a.Seconds*float64(time.Second)))
		most.fetched = max(most.fetched, u.sent.Load())
		most.connections = max(most.connections, u.network.most.Load())
	}
	most.took = median(times)
	return most, nil
}
