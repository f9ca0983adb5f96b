package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// interval is a part of a blob, from its first byte to before its end.
type interval struct{ start, end int64 }

func (i interval) String() string { return fmt.Sprintf("%d-%d", i.start, i.end-1) }

// randomIntervals returns n intervals of a blob of size bytes, the same ones in every run.
func randomIntervals(n int, length, size int64) []interval {
	random := rand.New(rand.NewPCG(1, 2))
	list := make([]interval, n)
	for i := range list {
		start := random.Int64N(size - length)
		list[i] = interval{start, start + length}
	}
	return list
}

// read asks for intervals of a blob in one request and checks every byte. It returns the status and
// how many intervals the response had, or 0 for the whole blob.
func (s *server) read(ctx context.Context, client *http.Client, b *blob, intervals ...interval) (status, parts int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("blobs", b.digest), nil)
	if err != nil {
		return 0, 0, err
	}
	var ranges []string
	for _, i := range intervals {
		ranges = append(ranges, i.String())
	}
	r.Header.Set("Range", "bytes="+strings.Join(ranges, ","))
	resp, err := client.Do(r)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", s.name, err)
	}
	defer resp.Body.Close()
	parts, err = checkIntervals(resp, b, intervals)
	if err != nil {
		err = fmt.Errorf("%s: %s of %s: %w", s.name, r.Header.Get("Range"), b.digest, err)
	}
	return resp.StatusCode, parts, err
}

func checkIntervals(resp *http.Response, b *blob, want []interval) (int, error) {
	kind, parameters, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode == http.StatusOK:
		return 0, b.same(resp.Body, interval{0, b.size})
	case resp.StatusCode != http.StatusPartialContent:
		return 0, errors.New(resp.Status)
	case kind != "multipart/byteranges":
		if len(want) != 1 {
			return 0, fmt.Errorf("one part of %s for %d intervals", resp.Header.Get("Content-Range"), len(want))
		}
		return 1, b.part(resp.Header.Get("Content-Range"), resp.Body, want[0])
	}
	parts := multipart.NewReader(resp.Body, parameters["boundary"])
	for i, one := range want {
		part, err := parts.NextPart()
		if err != nil {
			return i, err
		}
		if err := b.part(part.Header.Get("Content-Range"), part, one); err != nil {
			return i, err
		}
	}
	if _, err := parts.NextPart(); !errors.Is(err, io.EOF) {
		return len(want), fmt.Errorf("more parts than were asked for: %w", err)
	}
	return len(want), nil
}

// part checks that a part of a response is the interval, by its Content-Range and its bytes.
func (b *blob) part(contentRange string, r io.Reader, want interval) error {
	if expected := fmt.Sprintf("bytes %s/%d", want, b.size); contentRange != expected {
		return fmt.Errorf("the part is %q, want %q", contentRange, expected)
	}
	return b.same(r, want)
}

// same checks that r has the interval's bytes and no more.
func (b *blob) same(r io.Reader, want interval) error {
	var got, expect [32 << 10]byte
	for at := want.start; at < want.end; {
		n, err := io.ReadFull(r, got[:min(int64(len(got)), want.end-at)])
		if err != nil {
			return fmt.Errorf("byte %d: %w", at+int64(n), err)
		}
		if _, err := (&blobReader{b, at}).Read(expect[:n]); err != nil {
			return err
		}
		if !bytes.Equal(got[:n], expect[:n]) {
			return fmt.Errorf("wrong bytes after byte %d", at)
		}
		at += int64(n)
	}
	if n, _ := io.ReadFull(r, got[:1]); n > 0 {
		return errors.New("more bytes than were asked for")
	}
	return nil
}

// lazyPull is what a lazy puller's reads cost upstream.
type lazyPull struct {
	took     time.Duration
	fetched  int64 // bytes from the upstream
	requests int64
}

// readAll reads intervals, four at once, as a snapshotter does whose container starts, and waits until
// the server asks the upstream for nothing more.
func (s *server) readAll(ctx context.Context, u *upstream, b *blob, intervals []interval) (lazyPull, error) {
	const readers = 4
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: readers}}
	defer client.CloseIdleConnections()
	u.reset()
	start := time.Now()
	work, reading := errgroup.WithContext(ctx)
	work.SetLimit(readers)
	for _, i := range intervals {
		work.Go(func() error {
			_, _, err := s.read(reading, client, b, i)
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return lazyPull{}, err
	}
	took := time.Since(start)
	err := u.settle(ctx)
	return lazyPull{took, u.sent.Load(), u.requests.Load()}, err
}

// lazy is a lazy pull, and one request for two intervals: what both cost upstream.
func (b *bench) lazy(ctx context.Context) error {
	count, size := 200, int64(1<<30)
	if b.quick {
		count, size = 50, 256*mib
	}
	const length = 64 << 10
	// The first image has a second layer, which a server that fetches ahead must leave alone.
	lazy, several := newImage("v1", 2, size), newImage("v2", 1, size)
	intervals := randomIntervals(count, length, size)
	pair := []interval{{0, 100_000}, {1_000_000, 1_100_000}}
	wanted := int64(count) * length
	t := table{
		title: "Lazy pull",
		note: fmt.Sprintf("%d random ranges of 64 KiB in a blob of %s that is not stored, %v away, four at once: %s in all. Every byte is checked. "+
			"Two ranges: one request for bytes=%v,%v of another blob.", count, mebibytes(size), latency, mebibytes(wanted), pair[0], pair[1]),
		head: []string{"through", "first time", "from upstream", "requests", "second time", "from upstream", "requests", "two ranges", "from upstream"},
	}
	for _, name := range []string{direct, nginxCache, sidemirror} {
		one, err := b.lazyThrough(ctx, name, lazy, several, intervals, pair)
		if err != nil {
			return err
		}
		row := []string{name}
		for _, pull := range []lazyPull{one.first, one.second} {
			row = append(row, seconds(pull.took), mebibytes(pull.fetched), fmt.Sprint(pull.requests))
		}
		t.rows = append(t.rows, append(row, one.pair, mebibytes(one.pairFetched)))
		if name != sidemirror {
			continue
		}
		b.judge(one.first.fetched <= 5*wanted, "lazy pull, bytes from upstream", "5 × wanted",
			fmt.Sprintf("%.1f × (%s)", float64(one.first.fetched)/float64(wanted), mebibytes(one.first.fetched)))
		b.judge(one.second.fetched == 0, "lazy pull, the second time", "0 bytes from upstream", mebibytes(one.second.fetched))
		b.judge(one.pair == "206, 2 parts" && one.pairFetched <= mib, "two ranges in one request", "206 with 2 parts, 1 MiB from upstream",
			fmt.Sprintf("%s, %s", one.pair, mebibytes(one.pairFetched)))
	}
	b.tables = append(b.tables, t)
	return nil
}

type lazyFigures struct {
	first, second lazyPull
	pair          string // what the request for two intervals got
	pairFetched   int64
}

func (b *bench) lazyThrough(ctx context.Context, name string, lazy, several *image, intervals, pair []interval) (lazyFigures, error) {
	var f lazyFigures
	u, s, stop, err := b.far(ctx, name, newUpstream, lazy, several)
	if err != nil {
		return f, err
	}
	defer stop()
	for _, img := range []*image{lazy, several} {
		if err := s.fetch(ctx, s.path("manifests", img.manifest.digest), img.manifest); err != nil {
			return f, err
		}
	}
	if f.first, err = s.readAll(ctx, u, lazy.layers[0], intervals); err != nil {
		return f, err
	}
	if f.second, err = s.readAll(ctx, u, lazy.layers[0], intervals); err != nil {
		return f, err
	}
	u.reset()
	status, parts, err := s.read(ctx, http.DefaultClient, several.layers[0], pair...)
	if err != nil {
		return f, err
	}
	f.pair = fmt.Sprintf("%d, %d parts", status, parts)
	if parts == 0 {
		f.pair = fmt.Sprintf("%d, the whole", status)
	}
	err = u.settle(ctx)
	f.pairFetched = u.sent.Load()
	return f, err
}
