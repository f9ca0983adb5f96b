package prefetch

import (
	"context"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// freely is how many bytes of a layer come in as fast as they can. They cost the clients little,
	// and most layers are not longer.
	freely = 16 << 20

	// yieldPause is how long each further read waits for the clients' own fetches to end: a server
	// that could send nothing for long would close the connection.
	yieldPause = time.Second
)

// Client records that a client waits for a fetch, until the function returned is called.
func (p *Prefetcher) Client() (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clients++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.clients--; p.clients == 0 {
			p.notify()
		}
	}
}

// notify wakes those who wait for a change. p.mu is held.
func (p *Prefetcher) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Body returns body, that of a layer which is fetched ahead, so that its bytes are counted and that
// a long one leaves the line to clients. As soon as a client asks for the layer, it comes in as fast
// as any other.
func (p *Prefetcher) Body(ctx context.Context, layer digest.Digest, body io.ReadCloser) io.ReadCloser {
	return &yieldingBody{ReadCloser: body, p: p, ctx: ctx, layer: layer}
}

type yieldingBody struct {
	io.ReadCloser
	p     *Prefetcher
	ctx   context.Context
	layer digest.Digest
	read  int64
}

// Read implements [io.Reader].
func (b *yieldingBody) Read(buf []byte) (int, error) {
	if b.read >= freely {
		b.p.yield(b.ctx, b.layer)
	}
	n, err := b.ReadCloser.Read(buf)
	b.read += int64(n)
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	if f := b.p.fetching[b.layer]; f != nil && !f.wanted {
		b.p.counts.add(b.layer, int64(n))
	}
	return n, err
}

// yield waits a while, as long as clients wait for other blobs.
func (p *Prefetcher) yield(ctx context.Context, layer digest.Digest) {
	late := time.NewTimer(yieldPause)
	defer late.Stop()
	for {
		p.mu.Lock()
		f, changed := p.fetching[layer], p.changed
		waits := p.clients > 0 && f != nil && !f.wanted
		p.mu.Unlock()
		if !waits {
			return
		}
		select {
		case <-changed:
		case <-late.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
