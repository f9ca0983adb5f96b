// Package prefetch fetches the layers of an image that an engine will ask for next: an engine that
// lacks one layer lacks those on top of it, and asks for three at a time.
package prefetch

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	perImage = 4  // layers at a time that no client has asked for
	overall  = 16 // of all images

	// quiet is how long after the last request for an image its layers are still fetched.
	quiet = time.Minute

	// busyPause is how long to wait if the connections are needed for clients.
	busyPause = time.Second

	maxImages    = 256 // whose layers may be asked for
	maxPerCaller = 4
	maxLayers    = 1024
)

// Errors of [Image.Fetch]. Any other one ends the fetching for the image.
var (
	// ErrSkip says that this layer cannot be fetched, and the next one may be.
	ErrSkip = errors.New("the layer cannot be fetched ahead")

	// ErrBusy says that the layer can be fetched later.
	ErrBusy = errors.New("no connection is free")
)

// Image is an image whose manifest a caller was served.
type Image interface {
	// Layers returns its layers, the lowest first.
	Layers() []v1.Descriptor

	// Stored reports whether a layer is stored.
	Stored(digest.Digest) bool

	// Fetch stores a layer.
	Fetch(context.Context, v1.Descriptor) error
}

// Prefetcher fetches layers ahead of the engines. It is safe for concurrent use.
type Prefetcher struct {
	report func(Report)
	life   context.Context
	end    context.CancelFunc
	wait   sync.WaitGroup

	mu       sync.Mutex
	images   []*image // the one served longest ago first
	fetching map[digest.Digest]*fetching
	running  int
	clients  int           // fetches that clients wait for
	changed  chan struct{} // closed and replaced when clients or what they want changes
	counts   counts
}

// Report is what was fetched ahead for an image, when nothing more is.
type Report struct {
	Manifest digest.Digest
	Bytes    int64
	Unused   int64 // of layers that no client has asked for
	Err      error // that ended it early; nil if none did
}

// New returns a Prefetcher that calls report when it stops fetching for an image.
func New(report func(Report)) *Prefetcher {
	p := &Prefetcher{report: report, fetching: map[digest.Digest]*fetching{}, changed: make(chan struct{})}
	p.life, p.end = context.WithCancel(context.Background())
	return p
}

// Close ends all fetching and waits for it.
func (p *Prefetcher) Close() {
	p.end()
	p.mu.Lock()
	for len(p.images) > 0 {
		p.stop(p.images[0], nil)
	}
	p.mu.Unlock()
	p.wait.Wait()
}

// image is an image that a caller may be pulling.
type image struct {
	Image
	caller   string
	manifest digest.Digest
	parse    sync.Once
	ctx      context.Context
	cancel   context.CancelFunc

	// Under the prefetcher's mu.
	layers  []v1.Descriptor // once they have been parsed
	next    int             // the next layer to fetch; -1: none was asked for yet
	asked   map[digest.Digest]bool
	running int
	last    time.Time // of the last request
	timer   *time.Timer
	stopped bool
}

// fetching is a layer that is being fetched ahead.
type fetching struct {
	of     *image
	wanted bool // a client has asked for it, so that it is counted no more
}

// want records that a client has asked for a layer that is being fetched. p.mu is held.
func (p *Prefetcher) want(f *fetching) {
	if f == nil || f.wanted {
		return
	}
	f.wanted = true
	f.of.running--
	p.running--
	p.notify()
	p.start()
}

// Served records that a caller got the manifest of an image.
func (p *Prefetcher) Served(caller string, manifest digest.Digest, of Image) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life.Err() != nil {
		return
	}
	var own []*image
	for _, i := range p.images {
		if i.caller != caller {
			continue
		}
		if i.manifest == manifest {
			i.last = time.Now()
			return
		}
		own = append(own, i)
	}
	if len(own) >= maxPerCaller {
		p.stop(own[0], nil)
	} else if len(p.images) >= maxImages {
		p.stop(p.images[0], nil)
	}
	i := &image{Image: of, caller: caller, manifest: manifest, next: -1, asked: map[digest.Digest]bool{}, last: time.Now()}
	i.ctx, i.cancel = context.WithCancel(p.life)
	i.timer = time.AfterFunc(quiet, func() { p.lapse(i) })
	p.images = append(p.images, i)
}

// lapse stops an image that no client has asked for anything of.
func (p *Prefetcher) lapse(i *image) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if left := quiet - time.Since(i.last); left > 0 && !i.stopped {
		i.timer.Reset(left)
		return
	}
	p.stop(i, nil)
}

// stop forgets an image and ends its fetches. p.mu is held.
func (p *Prefetcher) stop(i *image, err error) {
	if i.stopped {
		return
	}
	i.stopped = true
	i.timer.Stop()
	i.cancel()
	p.images = slices.DeleteFunc(p.images, func(other *image) bool { return other == i })
	r := Report{Manifest: i.manifest, Err: err}
	for _, l := range i.layers {
		bytes, unused := p.counts.of(l.Digest)
		r.Bytes += bytes
		r.Unused += unused
	}
	if r.Bytes > 0 || err != nil {
		p.report(r)
	}
}

// Asked records that a caller asked for a blob. If it is missing and the caller pulls all of it,
// [Prefetcher.Begin] should follow. It reports whether bytes of the blob were fetched ahead, and this
// is the first request for it.
func (p *Prefetcher) Asked(caller string, blob digest.Digest, missing bool) (ahead bool) {
	p.mu.Lock()
	ahead = p.counts.use(blob)
	p.want(p.fetching[blob])
	var own []*image
	for _, i := range p.images {
		if i.caller == caller && (missing || i.layers != nil) {
			own = append(own, i)
		}
	}
	p.mu.Unlock()
	for _, i := range own {
		i.parse.Do(func() {
			layers := i.Layers()
			p.mu.Lock()
			defer p.mu.Unlock()
			i.layers = layers[:min(len(layers), maxLayers)]
		})
		p.mu.Lock()
		if !i.stopped && slices.ContainsFunc(i.layers, func(l v1.Descriptor) bool { return l.Digest == blob }) {
			i.last = time.Now()
			i.asked[blob] = true
		}
		p.mu.Unlock()
	}
	return ahead
}

// Begin begins to fetch the layers on top of one that a caller asked for. It is called when the
// upstream has responded: nothing is fetched ahead of a request that it refuses, and no rate limit
// is met by what no client wants while that request is under way.
func (p *Prefetcher) Begin(caller string, blob digest.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range p.images {
		if i.caller != caller || i.next >= 0 {
			continue
		}
		if at := slices.IndexFunc(i.layers, func(l v1.Descriptor) bool { return l.Digest == blob }); at >= 0 {
			i.next = at + 1
		}
	}
	p.start()
}

// start begins to fetch what may be fetched now, of the image served last first. p.mu is held.
func (p *Prefetcher) start() {
	for _, i := range slices.Backward(p.images) {
		for i.next >= 0 && i.next < len(i.layers) && i.running < perImage && p.running < overall && p.life.Err() == nil {
			l := i.layers[i.next]
			i.next++
			if p.fetching[l.Digest] != nil || i.asked[l.Digest] {
				continue
			}
			p.counts.forget(l.Digest)
			f := &fetching{of: i}
			p.fetching[l.Digest] = f
			i.running++
			p.running++
			p.wait.Go(func() { p.fetch(f, l) })
		}
	}
}

// fetch fetches one layer.
func (p *Prefetcher) fetch(f *fetching, l v1.Descriptor) {
	i := f.of
	err := p.try(i, l)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.fetching, l.Digest)
	if !f.wanted {
		i.running--
		p.running--
	}
	if err != nil && i.ctx.Err() == nil && !errors.Is(err, ErrSkip) {
		p.stop(i, err)
	}
	p.start()
}

func (p *Prefetcher) try(i *image, l v1.Descriptor) error {
	if i.Stored(l.Digest) {
		return nil
	}
	for {
		err := i.Fetch(i.ctx, l)
		if !errors.Is(err, ErrBusy) {
			return err
		}
		select {
		case <-time.After(busyPause):
		case <-i.ctx.Done():
			return i.ctx.Err()
		}
	}
}
