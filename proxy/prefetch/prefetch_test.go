package prefetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// fakeImage is an image each of whose layers takes a time to fetch.
type fakeImage struct {
	layers []v1.Descriptor

	mu      sync.Mutex
	stored  map[digest.Digest]bool
	fetched []int // layers, in the order in which they were begun
	now     int
	most    int
	took    time.Duration // that one fetch takes
	err     func(layer, attempt int) error
}

func newImage(layers int) *fakeImage {
	i := &fakeImage{stored: map[digest.Digest]bool{}, took: time.Second}
	for n := range layers {
		i.layers = append(i.layers, v1.Descriptor{Digest: digest.FromString(fmt.Sprint(n)), Size: 100})
	}
	return i
}

func (i *fakeImage) Layers() []v1.Descriptor { return i.layers }

func (i *fakeImage) Stored(d digest.Digest) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.stored[d]
}

func (i *fakeImage) Fetch(ctx context.Context, l v1.Descriptor) error {
	at := slices.IndexFunc(i.layers, func(other v1.Descriptor) bool { return other.Digest == l.Digest })
	i.mu.Lock()
	i.fetched = append(i.fetched, at)
	attempt := 0
	for _, n := range i.fetched {
		if n == at {
			attempt++
		}
	}
	i.now++
	i.most = max(i.most, i.now)
	i.mu.Unlock()
	defer func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.now--
	}()
	select {
	case <-time.After(i.took):
	case <-ctx.Done():
		return ctx.Err()
	}
	if i.err != nil {
		if err := i.err(at, attempt); err != nil {
			return err
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.stored[l.Digest] = true
	return nil
}

// seen returns what was fetched so far, in order.
func (i *fakeImage) seen() []int {
	synctest.Wait()
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.fetched)
}

func in(t *testing.T, do func(t *testing.T, p *Prefetcher, reports func() []Report)) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var all []Report
		p := New(func(r Report) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, r)
		})
		do(t, p, func() []Report {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(all)
		})
		p.Close()
	})
}

// pull records that a caller pulls a layer, and that the upstream has it.
func (p *Prefetcher) pull(caller string, layer digest.Digest) {
	p.Asked(caller, layer, true)
	p.Begin(caller, layer)
}

const caller, manifest = "a caller", digest.Digest("sha256:image")

func TestTheLayersOnTopOfTheOneAskedForAreFetchedFourAtATime(t *testing.T) {
	in(t, func(t *testing.T, p *Prefetcher, _ func() []Report) {
		i := newImage(10)
		p.Served(caller, manifest, i)
		if got := i.seen(); got != nil {
			t.Errorf("before any layer was asked for: %v", got)
		}
		p.Asked(caller, i.layers[2].Digest, true)
		if got := i.seen(); got != nil {
			t.Errorf("before the upstream has responded: %v", got)
		}
		p.Begin(caller, i.layers[2].Digest)
		if got := i.seen(); !slices.Equal(sorted(got), []int{3, 4, 5, 6}) {
			t.Errorf("at once: %v", got)
		}
		time.Sleep(10 * time.Second)
		if got := i.seen(); !slices.Equal(sorted(got), []int{3, 4, 5, 6, 7, 8, 9}) || i.most != perImage {
			t.Errorf("in the end: %v, %d at once", got, i.most)
		}
	})
}

func sorted(all []int) []int {
	all = slices.Clone(all)
	slices.Sort(all)
	return all
}

func TestNothingIsFetchedThatAClientHasAskedForOrThatIsStored(t *testing.T) {
	in(t, func(t *testing.T, p *Prefetcher, _ func() []Report) {
		i := newImage(12)
		i.stored[i.layers[3].Digest] = true
		p.Served(caller, manifest, i)
		for n := range 3 {
			p.pull(caller, i.layers[n].Digest)
		}
		p.pull(caller, i.layers[8].Digest)
		time.Sleep(10 * time.Second)
		got := sorted(i.seen())
		// The first request may begin 1, 2 and 4 before the others come.
		if slices.Contains(got, 0) || slices.Contains(got, 3) || slices.Contains(got, 8) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Errorf("%v", got)
		}
	})
}

func TestOnlyAMissingLayerOfTheCallersOwnImageStartsAnything(t *testing.T) {
	in(t, func(t *testing.T, p *Prefetcher, _ func() []Report) {
		i := newImage(5)
		p.Served(caller, manifest, i)
		p.pull("another caller", i.layers[0].Digest)
		p.pull(caller, digest.FromString("a config"))
		p.Asked(caller, i.layers[0].Digest, false)
		time.Sleep(10 * time.Second)
		if got := i.seen(); got != nil {
			t.Errorf("%v", got)
		}
	})
}

func TestFetchingStopsAMinuteAfterTheLastRequest(t *testing.T) {
	in(t, func(t *testing.T, p *Prefetcher, reports func() []Report) {
		i := newImage(1000)
		i.took = 10 * time.Second
		p.Served(caller, manifest, i)
		p.pull(caller, i.layers[0].Digest)
		time.Sleep(50 * time.Second)
		p.Asked(caller, i.layers[1].Digest, false) // any request for the image will do
		time.Sleep(55 * time.Second)
		before := len(i.seen())
		time.Sleep(time.Hour)
		after := len(i.seen())
		if before < 4*perImage || after > before+perImage {
			t.Errorf("%d fetches before the minute was over, and %d after it", before, after)
		}
		if i.now != 0 {
			t.Errorf("%d go on", i.now)
		}
		p.pull(caller, i.layers[5].Digest)
		if len(i.seen()) != after {
			t.Error("the image is not forgotten")
		}
	})
}

func TestAFailureEndsTheFetchingForThatImage(t *testing.T) {
	for name, c := range map[string]struct {
		err          error
		layers, most int
	}{
		"a refusal":               {errors.New("429"), 100, 2 * perImage}, // those that ended together with it had begun others
		"a layer that is skipped": {ErrSkip, 10, 9},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, p *Prefetcher, reports func() []Report) {
				i := newImage(c.layers)
				i.err = func(layer, _ int) error {
					if layer == 1 {
						return c.err
					}
					return nil
				}
				p.Served(caller, manifest, i)
				p.pull(caller, i.layers[0].Digest)
				time.Sleep(30 * time.Second)
				if got := i.seen(); len(got) > c.most || c.most == 9 && len(got) < 9 {
					t.Errorf("%v", got)
				}
				if all := reports(); c.most != 9 && (len(all) != 1 || !errors.Is(all[0].Err, c.err)) {
					t.Errorf("reported: %+v", all)
				}
			})
		})
	}
}

func TestALayerIsTriedAgainWhenConnectionsAreFree(t *testing.T) {
	in(t, func(t *testing.T, p *Prefetcher, _ func() []Report) {
		i := newImage(2)
		i.err = func(_, attempt int) error {
			if attempt < 4 {
				return ErrBusy
			}
			return nil
		}
		p.Served(caller, manifest, i)
		p.pull(caller, i.layers[0].Digest)
		time.Sleep(20 * time.Second)
		if got := i.seen(); len(got) != 4 || !i.Stored(i.layers[1].Digest) {
			t.Errorf("%v", got)
		}
	})
}

func TestImagesAreBounded(t *testing.T) {
	in(t, func(t *testing.T, p *Prefetcher, _ func() []Report) {
		for n := range 3 * maxImages {
			p.Served(fmt.Sprint("caller ", n), manifest, newImage(3))
			p.Served(caller, digest.FromString(fmt.Sprint(n)), newImage(3))
		}
		own := 0
		for _, i := range p.images {
			if i.caller == caller {
				own++
			}
		}
		if len(p.images) > maxImages || own > maxPerCaller {
			t.Errorf("%d images, %d of one caller", len(p.images), own)
		}
		many := newImage(3 * maxLayers)
		p.Served("another", manifest, many)
		p.pull("another", many.layers[0].Digest)
		synctest.Wait()
		if last := p.images[len(p.images)-1]; len(last.layers) != maxLayers {
			t.Errorf("%d layers", len(last.layers))
		}
	})
}

func TestAllImagesTogetherFetchABoundedNumberOfLayers(t *testing.T) {
	in(t, func(t *testing.T, p *Prefetcher, _ func() []Report) {
		var all []*fakeImage
		for n := range 10 {
			i := newImage(0)
			for m := range 10 {
				i.layers = append(i.layers, v1.Descriptor{Digest: digest.FromString(fmt.Sprint(n, " ", m))})
			}
			all = append(all, i)
			p.Served(fmt.Sprint("caller ", n), manifest, i)
			p.pull(fmt.Sprint("caller ", n), i.layers[0].Digest)
		}
		synctest.Wait()
		now := 0
		for _, i := range all {
			now += len(i.seen())
		}
		if now != overall {
			t.Errorf("%d layers at once", now)
		}
		time.Sleep(30 * time.Second)
		for n, i := range all {
			if len(i.seen()) != 9 {
				t.Errorf("image %d: %v", n, i.seen())
			}
		}
	})
}

// reading starts to read a layer of so many bytes that is fetched ahead, and returns how many have
// come.
func reading(t *testing.T, p *Prefetcher, layer digest.Digest, size int) (come func() int) {
	p.mu.Lock()
	p.fetching[layer] = &fetching{of: &image{running: 1}}
	p.running++
	p.mu.Unlock()
	body := p.Body(t.Context(), layer, io.NopCloser(bytes.NewReader(make([]byte, size))))
	var mu sync.Mutex
	n := 0
	go func() {
		for buf := make([]byte, 256<<10); ; {
			m, err := body.Read(buf)
			mu.Lock()
			n += m
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return func() int {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func TestALongLayerLeavesTheLineToClients(t *testing.T) {
	const size = 3 * freely
	layer := digest.FromString("long")
	for name, c := range map[string]struct {
		clients bool
		then    func(p *Prefetcher, done func())
	}{
		"no client waits":            {false, nil},
		"the client's fetch ends":    {true, func(_ *Prefetcher, done func()) { done() }},
		"the client asks for it too": {true, func(p *Prefetcher, _ func()) { p.Asked(caller, layer, true) }},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, p *Prefetcher, _ func() []Report) {
				done := func() {}
				if c.clients {
					done = sync.OnceFunc(p.Client())
				}
				defer done()
				come := reading(t, p, layer, size)
				if c.clients {
					if n := come(); n != freely {
						t.Errorf("%d bytes came while a client waited", n)
					}
					time.Sleep(10*yieldPause + time.Millisecond)
					if n := come(); n <= freely || n > freely+11*256<<10 {
						t.Errorf("%d bytes came in ten seconds", n)
					}
					c.then(p, done)
				}
				if n := come(); n != size {
					t.Errorf("%d bytes of %d came", n, size)
				}
			})
		})
	}
}

func TestBytesThatNoClientUsesAreCounted(t *testing.T) {
	in(t, func(t *testing.T, p *Prefetcher, reports func() []Report) {
		i := newImage(3)
		p.Served(caller, manifest, i)
		p.pull(caller, i.layers[0].Digest)
		synctest.Wait()
		for n, size := range []int{0, 1000, 500} {
			if n > 0 {
				body := p.Body(t.Context(), i.layers[n].Digest, io.NopCloser(bytes.NewReader(make([]byte, size))))
				_, _ = io.Copy(io.Discard, body)
			}
		}
		if got := p.Stats(); got != (Stats{Bytes: 1500, Unused: 1500}) {
			t.Errorf("%+v", got)
		}
		p.Asked(caller, i.layers[1].Digest, false)
		p.Asked("another caller", i.layers[1].Digest, false)
		if got := p.Stats(); got != (Stats{Bytes: 1500, Unused: 500}) {
			t.Errorf("after one was used: %+v", got)
		}
		time.Sleep(2 * quiet)
		if all := reports(); len(all) != 1 || all[0].Bytes != 1500 || all[0].Unused != 500 || all[0].Manifest != manifest {
			t.Errorf("reported: %+v", all)
		}
	})
}
