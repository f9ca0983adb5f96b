package proxy

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/shared"
	"github.com/sidemirror/sidemirror/proxy/transfer"
)

const (
	// sharedStore is the name of the shared store among the upstreams of a transfer.
	sharedStore = "the shared store"

	// sharedPatience is how long the shared store may take to respond before a registry is asked too.
	sharedPatience = 50 * time.Millisecond

	// A store that brings less than slowestStore bytes in each of slowLooks intervals of lookEvery is
	// given up: a registry is likely to be quicker.
	slowestStore = 4 << 20
	slowLooks    = 2
	lookEvery    = time.Second
)

// openBlob opens a reader of r's blob as it comes from the upstreams. If the shared store is quicker, it
// brings the blob into the cache and returns transfer.ErrStored, and shared is true: no client gets a
// byte from the store before all of them have the digest.
func (p *Proxy) openBlob(ctx context.Context, r *request, want transfer.Want, f *fetch) (reader *transfer.Reader, shared bool, err error) {
	f.setHerd(nil)
	if p.shared == nil || want.Alone || !beginsPull(want.Ranges) || !p.shared.Ready() {
		reader, err = p.transfers.Open(ctx, want)
		return reader, false, err
	}
	want.Stored = func(name string) { p.share(r, name) }
	store := p.beginFill(ctx, r, want)
	f.setHerd(p.herdOf(r, store))
	reader, shared, err = p.openQuickest(ctx, store, want)
	if errors.Is(err, errInSharedStore) { // another host has uploaded it while this one waited
		f.setHerd(nil)
		if p.beginFill(ctx, r, want).wait() == nil {
			return nil, true, transfer.ErrStored
		}
		reader, err = p.transfers.Open(ctx, want)
		return reader, false, err
	}
	return reader, shared, err
}

// openQuickest waits for the shared store, which f asks, and asks the upstreams too if it does not
// respond quickly or does not have the blob.
func (p *Proxy) openQuickest(ctx context.Context, f *fill, want transfer.Want) (reader *transfer.Reader, shared bool, err error) {
	late := time.NewTimer(sharedPatience)
	defer late.Stop()
	select {
	case <-f.responded:
	case <-late.C:
		if reader, err, ok := p.race(ctx, f, want); ok {
			f.cancel()
			return reader, false, err
		}
	}
	if f.wait() == nil {
		return nil, true, transfer.ErrStored
	}
	reader, err = p.transfers.Open(ctx, want)
	return reader, false, err
}

// race asks the upstreams while the store has not responded. ok is false if the store was quicker.
func (p *Proxy) race(ctx context.Context, f *fill, want transfer.Want) (reader *transfer.Reader, err error, ok bool) {
	type result struct {
		reader *transfer.Reader
		err    error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	opened := make(chan result, 1)
	go func() {
		reader, err := p.transfers.Open(ctx, want)
		opened <- result{reader, err}
	}()
	select {
	case <-f.responded:
		if f.found {
			go func() { // it may be open already
				if o := <-opened; o.reader != nil {
					_ = o.reader.Close()
				}
			}()
			return nil, nil, false
		}
	case o := <-opened:
		return o.reader, o.err, true
	}
	o := <-opened
	return o.reader, o.err, true
}

// fill is a blob that comes from the shared store into the cache.
type fill struct {
	cancel    context.CancelFunc
	responded chan struct{} // closed when the store has responded, or has failed
	found     bool          // the store has the blob; set before responded is closed
	ended     chan struct{}
	err       error // set before ended is closed
}

// respondsWithin reports whether the store responds, or has failed, within a time from now.
func (f *fill) respondsWithin(d time.Duration) bool {
	late := time.NewTimer(d)
	defer late.Stop()
	select {
	case <-f.responded:
		return true
	case <-late.C:
		return false
	}
}

// wait waits until the blob is in the cache, or cannot come from the store.
func (f *fill) wait() error {
	<-f.ended
	f.cancel()
	return f.err
}

// beginFill begins to fetch r's blob from the shared store. It ends with ctx.
func (p *Proxy) beginFill(ctx context.Context, r *request, want transfer.Want) *fill {
	f := &fill{responded: make(chan struct{}), ended: make(chan struct{})}
	ctx, f.cancel = context.WithCancel(ctx)
	go func() {
		defer close(f.ended)
		reader, err := p.transfers.Open(ctx, transfer.Want{
			Digest:    want.Digest,
			Source:    &sharedSource{p.shared, want.Digest},
			By:        sharedStore,
			Granted:   true, // the caller's own right is looked at before it gets a byte
			Untrusted: want.Untrusted,
			Parallel:  r.registry.parallel,
			Ahead:     want.Ahead,
			Doubtful:  true,
		})
		f.found = err == nil || errors.Is(err, transfer.ErrStored)
		close(f.responded)
		switch {
		case errors.Is(err, transfer.ErrStored):
		case err != nil:
			f.err = err
		default:
			f.err = p.bring(ctx, r, reader)
			_ = reader.Close()
		}
	}()
	return f
}

// bring waits until a blob from the store is in the cache. Meanwhile it finds out whether r's caller
// may have it, which is asked of the upstreams as ever.
func (p *Proxy) bring(ctx context.Context, r *request, reader *transfer.Reader) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var refusal error
	decided := make(chan struct{})
	go func() {
		defer close(decided)
		if refusal = p.entitle(ctx, &accessLine{}, r, reader.Size); refusal != nil {
			cancel(refusal)
		}
	}()
	go p.watchPace(ctx, reader, cancel)
	err := reader.WaitStored(ctx)
	switch {
	case err == nil:
		p.shared.Verified()
		<-decided
		return refusal
	case errors.Is(err, transfer.ErrMismatch):
		p.shared.Wrong(r.Digest)
	}
	cancel(err)
	<-decided
	return err
}

// errSlowStore says that the shared store sends too slowly.
var errSlowStore = errors.New("the shared store sends more slowly than a registry would")

// watchPace gives up a store that sends too slowly.
func (p *Proxy) watchPace(ctx context.Context, reader *transfer.Reader, giveUp context.CancelCauseFunc) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	slow, last := 0, reader.Present()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := reader.Present()
		if slow++; now-last >= slowestStore || now >= reader.Size {
			slow = 0
		}
		if last = now; slow == slowLooks {
			p.shared.Slow()
			giveUp(errSlowStore)
			return
		}
	}
}

// sharedSource is the shared store as a source of a transfer.
type sharedSource struct {
	store  *shared.Store
	digest digest.Digest
}

// Upstreams implements [transfer.Source].
func (s *sharedSource) Upstreams() []string { return []string{sharedStore} }

// Open implements [transfer.Source].
func (s *sharedSource) Open(ctx context.Context, r transfer.Range, _ transfer.Options) (transfer.Part, error) {
	o, err := s.store.Open(ctx, s.digest, max(r.Start, 0), r.End)
	if err != nil {
		return transfer.Part{}, err
	}
	return transfer.Part{Body: o.Body, From: sharedStore, Start: o.Start, End: o.End, Total: o.Total, ETag: o.ETag, Ranged: true}, nil
}
