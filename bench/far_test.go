package main

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// distant starts an upstream that has images.
func distant(t *testing.T, listen func() (*upstream, error), images ...*image) (*upstream, *server) {
	t.Helper()
	u, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.close)
	u.add(images...)
	return u, u.asServer()
}

func TestTheEnginePullsAWholeImage(t *testing.T) {
	img := newImage("v1", 4, 1000)
	u, s := distant(t, newUpstream, img)
	const roundTrip = 20 * time.Millisecond
	u.network.latency.Store(int64(roundTrip))
	a, err := pullOrder{Server: s.origin(), Tag: "v1"}.do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The handshake, the tag, the manifest, and five blobs three at once.
	if least := 5 * roundTrip.Seconds(); a.Seconds < least {
		t.Errorf("it took %v s, and cannot take less than %v s", a.Seconds, least)
	}
	if want := img.manifest.size + img.config.size + 4*1000; a.Bytes != want {
		t.Errorf("it pulled %d bytes, want %d", a.Bytes, want)
	}
	if n := u.requests.Load(); n != 7 {
		t.Errorf("the upstream saw %d requests, want 7", n)
	}
	if n, want := u.sent.Load(), img.config.size+4*1000; n != want {
		t.Errorf("the upstream sent %d bytes of blobs, want %d", n, want)
	}
	if _, err := (pullOrder{Server: s.origin(), Tag: "v2"}).do(t.Context()); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("a tag that does not exist: %v", err)
	}
}

func TestTheEngineFetchesPartsOverConnectionsOfTheirOwn(t *testing.T) {
	img := newImage("v1", 1, 2*chunk+5)
	layer := img.layers[0]
	for _, tt := range []struct {
		name   string
		listen func() (*upstream, error)
	}{
		{"HTTP/1.1", newUpstream},
		{"HTTP/2", func() (*upstream, error) { return newSecureUpstream(t.TempDir()) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, s := distant(t, tt.listen, img)
			o := pullOrder{Server: s.origin(), CA: s.ca, Digest: layer.digest, Size: layer.size, Parts: 3}
			if _, err := o.do(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := u.requests.Load(); n != 3 {
				t.Errorf("%d requests for 3 parts", n)
			}
			// A part that has ended leaves its connection to the next one.
			if n := u.network.most.Load(); tt.name == "HTTP/1.1" && n < 2 {
				t.Errorf("%d connections for 3 parts", n)
			}
		})
	}
}

func TestTheEngineNoticesWrongBytes(t *testing.T) {
	img, other := newImage("v1", 1, 5000), newBlob(5000)
	u, s := distant(t, newUpstream, img)
	u.blobs[img.layers[0].digest] = other
	_, err := pullOrder{Server: s.origin(), Digest: img.layers[0].digest, Size: 5000}.do(t.Context())
	if err == nil || !strings.Contains(err.Error(), "other bytes") {
		t.Errorf("got %v", err)
	}
}

// Each connection has its own rate, and all of them share the link's.
func TestConnectionsKeepTheirRates(t *testing.T) {
	img := newImage("v1", 1, 2*mib)
	for _, tt := range []struct {
		name       string
		rate, link int64
		least      time.Duration // for two connections with 2 MiB each
	}{
		{"of each connection", 16 * mib, 0, 100 * time.Millisecond},
		{"of the link", 0, 16 * mib, 220 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, s := distant(t, newUpstream, img)
			u.network.rate.Store(tt.rate)
			u.network.link.rate.Store(tt.link)
			start := time.Now()
			a, err := order{Address: s.address, Path: s.blob(img.layers[0]), Clients: 2, Times: 1}.do(t.Context())
			if err != nil || a.Bytes != 4*mib {
				t.Fatalf("%d bytes, %v", a.Bytes, err)
			}
			if took := time.Since(start); took < tt.least {
				t.Errorf("it took %v, and cannot take less than %v", took, tt.least)
			}
			if n := u.network.most.Load(); n != 2 {
				t.Errorf("%d connections were open at once, want 2", n)
			}
		})
	}
}

func TestIntervalsAreCheckedToTheByte(t *testing.T) {
	img := newImage("v1", 2, mib)
	u, s := distant(t, newUpstream, img)
	layer, pair := img.layers[0], []interval{{0, 100}, {500_000, 500_007}}
	for _, tt := range []struct {
		intervals   []interval
		want, parts int
	}{
		{pair[:1], http.StatusPartialContent, 1},
		{pair, http.StatusPartialContent, 2},
	} {
		status, parts, err := s.read(t.Context(), http.DefaultClient, layer, tt.intervals...)
		if err != nil || status != tt.want || parts != tt.parts {
			t.Errorf("%v: %d with %d parts, %v", tt.intervals, status, parts, err)
		}
	}
	if n := u.sent.Load(); n != 100+107 {
		t.Errorf("the upstream sent %d bytes, want 207", n)
	}
	u.blobs[layer.digest] = img.layers[1]
	if _, _, err := s.read(t.Context(), http.DefaultClient, layer, pair...); err == nil || !strings.Contains(err.Error(), "wrong bytes") {
		t.Errorf("another blob's bytes: %v", err)
	}
	u.blobs[layer.digest] = newBlob(2 * mib)
	if _, _, err := s.read(t.Context(), http.DefaultClient, layer, pair...); err == nil || !strings.Contains(err.Error(), "/2097152") {
		t.Errorf("another size: %v", err)
	}
}

func TestWhatAServerFetchesAfterItsClientLeftCounts(t *testing.T) {
	img := newImage("v1", 1, mib)
	u, s := distant(t, newUpstream, img)
	u.network.latency.Store(int64(100 * time.Millisecond))
	done := make(chan error, 1)
	go func() { done <- s.fetch(t.Context(), s.blob(img.layers[0]), img.layers[0]) }()
	for u.requests.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := u.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := u.sent.Load(); n != mib {
		t.Errorf("the upstream had sent %d bytes when it was taken for quiet", n)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAnUnknownFigureIsRefused(t *testing.T) {
	if _, err := sideBySide.only([]string{"pull", "pul"}); err == nil || !strings.Contains(err.Error(), `"pul"`) {
		t.Errorf("got %v", err)
	}
	s, err := sideBySide.only([]string{"lazy", "pull"})
	if err != nil || strings.Join(s.names(), " ") != "pull lazy" {
		t.Errorf("%v, %v", s.names(), err)
	}
}
