package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// start100k is the time from exec to READY=1, and to the first response, with 100,000
// blobs stored.
func (b *bench) start100k(ctx context.Context) error {
	const kept = 100_000
	dir, err := os.MkdirTemp(b.dir, "kept-")
	if err != nil {
		return err
	}
	u, err := newUpstream()
	if err != nil {
		return err
	}
	defer u.close()
	times := 7
	if b.quick {
		times = 5
	}
	// Once with nothing, for the layout to be made, and to compare with.
	empty, emptyServed, err := b.startTimes(ctx, dir, u, times)
	if err != nil {
		return err
	}
	if err := fillKept(ctx, filepath.Join(dir, "cache/blobs/sha256"), kept); err != nil {
		return err
	}
	full, fullServed, err := b.startTimes(ctx, dir, u, times)
	// Now, and not while the next figure is measured.
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		return err
	}
	b.tables = append(b.tables, table{
		title: "Start",
		note: fmt.Sprintf("From exec to READY=1 on $NOTIFY_SOCKET, and to the first response to GET /v2/, which is tried each millisecond; medians of %d starts. "+
			"The blobs are small files in the cache's own layout.", times),
		head: []string{"blobs kept", "to READY", "worst", "to a response", "worst"},
		rows: [][]string{
			{"0", millis(median(empty)), millis(slices.Max(empty)), millis(median(emptyServed)), millis(slices.Max(emptyServed))},
			{fmt.Sprint(kept), millis(median(full)), millis(slices.Max(full)), millis(median(fullServed)), millis(slices.Max(fullServed))},
		},
	})
	got := max(median(full), median(fullServed))
	b.judge(got <= 50*time.Millisecond, "start to READY, 100,000 blobs kept", "50 ms", millis(median(full))+", response after "+millis(median(fullServed)))
	return nil
}

// fillKept makes n different small files, as stored blobs.
func fillKept(ctx context.Context, dir string, n int) error {
	for first := range 256 {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf("%02x", first)), 0o755); err != nil {
			return err
		}
	}
	for i := range n {
		if err := ctx.Err(); err != nil {
			return err
		}
		data := fmt.Appendf(nil, "blob %d\n", i)
		hex := fmt.Sprintf("%x", sha256.Sum256(data))
		if err := os.WriteFile(filepath.Join(dir, hex[:2], hex), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// startTimes starts sidemirror so many times in dir.
func (b *bench) startTimes(ctx context.Context, dir string, upstream *upstream, times int) (ready, served []time.Duration, err error) {
	for range times {
		r, s, err := b.startTime(ctx, dir, upstream)
		if err != nil {
			return nil, nil, err
		}
		ready, served = append(ready, r), append(served, s)
	}
	return ready, served, nil
}

func (b *bench) startTime(ctx context.Context, dir string, upstream *upstream) (ready, served time.Duration, err error) {
	address, err := freeAddress()
	if err != nil {
		return 0, 0, err
	}
	argv, err := b.sidemirror(dir, address, upstream)
	if err != nil {
		return 0, 0, err
	}
	socket := filepath.Join(dir, "notify")
	_ = os.Remove(socket) // of the start before
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return 0, 0, err
	}
	defer l.Close()
	if err := l.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return 0, 0, err
	}
	start := time.Now()
	p, err := spawn(sidemirror, b.logOf(sidemirror), []string{"HOME=" + dir, "NOTIFY_SOCKET=" + socket}, argv...)
	if err != nil {
		return 0, 0, err
	}
	defer p.stop()
	readyAt := make(chan time.Duration, 1)
	go func() {
		defer close(readyAt)
		said := make([]byte, 4096)
		for {
			n, err := l.Read(said)
			if err != nil {
				return
			}
			if bytes.Contains(said[:n], []byte("READY=1")) {
				readyAt <- time.Since(start)
				return
			}
		}
	}()
	if err := p.ready(ctx, address, "/v2/"); err != nil {
		return 0, 0, err
	}
	served = time.Since(start)
	ready, reported := <-readyAt
	if !reported {
		return 0, 0, errors.New("sidemirror serves, but did not report READY=1")
	}
	return ready, served, nil
}
