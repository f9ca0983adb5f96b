// Package transfer is the one way a blob's bytes come in: whole blobs and ranges, into the cache or
// past it.
//
// A transfer fetches one blob from one upstream into a partial blob of the cache. Any number of
// readers read what is there and wait for what is missing; connections fetch what they miss, each
// interval once. When everything is there and has the digest, the blob is stored. Without a cache,
// a stream reads the upstream as fast as its one client reads the stream.
package transfer

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

const (
	// maxUntrusted is how many blobs are fetched into the cache for untrusted callers at a time.
	// Others pass through uncached.
	maxUntrusted = 8

	// lingers is how long a transfer that no reader needs stays open for the next one, and
	// maxLingering how many do.
	lingers      = 10 * time.Second
	maxLingering = 64
)

// Want is what is asked of [Transfers.Open].
type Want struct {
	Digest digest.Digest
	Source Source

	// Ranges are the parts that are read. Without any it is the whole.
	Ranges []Range

	// By is in whose name the source asks. Callers of the same name share a refusal of the source,
	// and what it sent.
	By string

	// Granted says that the caller is known to be allowed the blob, whichever caller it is fetched
	// for.
	Granted bool

	// Untrusted says that the caller is untrusted: what it has fetched has a share of the cache.
	Untrusted bool

	// Alone says that the caller gets what its source sends and nothing else: the blob is neither
	// shared nor stored.
	Alone bool

	// Parallel is over how many connections at most a large blob is fetched. 0 and 1 mean one.
	Parallel int

	// Ahead says that no client waits for the blob: it is fetched over one connection.
	Ahead bool

	// Doubtful says that the source may announce a size that the blob does not have. Other content makes
	// room for the bytes that come, and not for those that are announced.
	Doubtful bool

	// Verified, if not nil, is called with the upstream's name when the source has sent the blob or
	// a part of it and the whole has the digest, before the last byte is given to anyone.
	Verified func(upstream string)

	// Stored, if not nil, is called with the upstream's name when the blob is stored, if the transfer
	// was begun for this caller.
	Stored func(upstream string)
}

// Stats are counters since the start.
type Stats struct {
	Fetched  int64 // bytes that came from upstreams
	Refused  int64 // bytes of blobs that did not have their digest
	Requests int64 // for the bytes of blobs
}

// Transfers are the transfers into one cache folder. It is safe for concurrent use.
type Transfers struct {
	dir       *cache.Dir // nil: nothing is stored
	sizes     sizes
	condemned lapses // upstreams and digests
	single    lapses // upstreams that get one connection for each blob

	fetched, refused, requests atomic.Int64
	broadcasts                 broadcasts

	mu        sync.Mutex
	running   map[digest.Digest][]*transfer
	untrusted int // transfers that untrusted callers began and that are at work
	lingering int
	closed    bool
	wait      sync.WaitGroup
}

// New returns the transfers into a cache folder; with nil nothing is stored.
func New(dir *cache.Dir) *Transfers {
	return &Transfers{
		dir:       dir,
		sizes:     defaultSizes,
		condemned: lapses{last: condemnedFor},
		single:    lapses{last: singleFor},
		running:   map[digest.Digest][]*transfer{},
	}
}

// Stats returns the counters.
func (s *Transfers) Stats() Stats {
	return Stats{s.fetched.Load(), s.refused.Load(), s.requests.Load()}
}

// Close ends the transfers into the cache and waits for them. What is present stays on disk.
func (s *Transfers) Close() {
	s.mu.Lock()
	s.closed = true
	var all []*transfer
	for _, some := range s.running {
		all = append(all, some...)
	}
	s.mu.Unlock()
	for _, t := range all {
		t.fail(errClosed)
	}
	s.wait.Wait()
	s.broadcasts.close()
}

// Open returns a reader of a blob. It joins a transfer that is under way from one of the source's
// upstreams, or begins one. The context is for the opening alone.
func (s *Transfers) Open(ctx context.Context, want Want) (*Reader, error) {
	return s.open(ctx, want, nil)
}

// open is Open without some upstreams.
func (s *Transfers) open(ctx context.Context, want Want, without []string) (*Reader, error) {
	if s.dir == nil || want.Alone {
		return s.openStream(ctx, want, without)
	}
	for {
		t, err := s.enter(want, without)
		if errors.Is(err, errBusy) {
			return s.openStream(ctx, want, without)
		}
		if err != nil {
			return nil, err
		}
		select {
		case <-t.opened:
		case <-ctx.Done():
			t.leave(nil)
			return nil, ctx.Err()
		}
		err = t.openErr
		if err == nil && !t.serves(want, without) {
			t.leave(nil)
			continue
		}
		if err == nil {
			r, err := t.reader(ctx, want)
			if err == nil {
				return r, nil
			}
			t.leave(nil)
			if errors.Is(err, cache.ErrStorage) {
				return s.openStream(ctx, want, without)
			}
			if without = append(slices.Clone(without), t.from); !mayDoBetter(err) || len(s.candidates(want, without)) == 0 {
				return nil, err
			}
			continue
		}
		spare := t.takeSpare(want)
		t.leave(nil)
		if spare != nil {
			defer spare.close() // if the stream joins another one
			want.Source = spare
			return s.openStream(ctx, want, without)
		}
		if errors.Is(err, errClosed) || ctx.Err() != nil {
			return nil, err
		}
		if errors.Is(err, cache.ErrStorage) {
			// The share of untrusted callers is no bound for a trusted one.
			if t.want.Untrusted == want.Untrusted {
				return s.openStream(ctx, want, without)
			}
			continue
		}
		if t.sharesFailure(want, err) {
			return nil, err
		}
	}
}

// mayDoBetter reports whether another upstream may do better than one that failed with err.
func mayDoBetter(err error) bool {
	var none *UnsatisfiableError
	return !errors.Is(err, errClosed) && !errors.Is(err, context.Canceled) && !errors.As(err, &none)
}

// sharesFailure reports whether err, by which a transfer could not be opened, is an answer to want
// too. That another caller was refused, left, or asked for other ranges is none.
func (t *transfer) sharesFailure(want Want, err error) bool {
	var none *UnsatisfiableError
	if errors.As(err, &none) && !slices.Equal(t.want.Ranges, want.Ranges) || errors.Is(err, context.Canceled) {
		return false
	}
	return t.want.By == want.By && t.want.Granted == want.Granted && t.want.Ahead == want.Ahead
}

// errBusy says that too many blobs are fetched for untrusted callers already.
var errBusy = errors.New("too many blobs are being fetched for untrusted callers")

// candidates returns the upstreams to ask: those that are not condemned, if there are any.
func (s *Transfers) candidates(want Want, without []string) []string {
	var good, bad []string
	for _, name := range want.Source.Upstreams() {
		switch {
		case slices.Contains(without, name):
		case s.condemned.has(condemnedKey(want.Digest, name)):
			bad = append(bad, name)
		default:
			good = append(good, name)
		}
	}
	if len(good) == 0 {
		return bad
	}
	return good
}

func condemnedKey(d digest.Digest, upstream string) string { return d.String() + " " + upstream }

// enter joins a transfer, or begins one.
func (s *Transfers) enter(want Want, without []string) (*transfer, error) {
	names := s.candidates(want, without)
	if len(names) == 0 {
		return nil, ErrMismatch
	}
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, errClosed
		}
		t := s.find(want.Digest, names)
		if t == nil {
			t, err := s.begin(want, names)
			s.mu.Unlock()
			return t, err
		}
		joined, err := t.join(want)
		s.mu.Unlock()
		if joined || err != nil {
			return t, err
		}
		<-t.gone // it is about to end
	}
}

// find returns a transfer of the blob from one of the upstreams. s.mu is held.
func (s *Transfers) find(d digest.Digest, names []string) *transfer {
	for _, t := range s.running[d] {
		if slices.ContainsFunc(t.mayBeFrom(), func(name string) bool { return slices.Contains(names, name) }) {
			return t
		}
	}
	return nil
}

// begin begins a transfer. s.mu is held.
func (s *Transfers) begin(want Want, names []string) (*transfer, error) {
	if s.dir.HasBlob(want.Digest) {
		return nil, ErrStored
	}
	if want.Untrusted && s.untrusted >= maxUntrusted {
		return nil, errBusy
	}
	t := newTransfer(s, want, names)
	s.running[want.Digest] = append(s.running[want.Digest], t)
	if t.guest {
		s.untrusted++
	}
	s.wait.Go(t.open)
	return t, nil
}

// retire removes a transfer that has ended.
func (s *Transfers) retire(t *transfer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := slices.DeleteFunc(s.running[t.want.Digest], func(other *transfer) bool { return other == t })
	if s.running[t.want.Digest] = left; len(left) == 0 {
		delete(s.running, t.want.Digest)
	}
	s.settle(t)
	if t.idle {
		t.idle = false
		s.lingering--
	}
	close(t.gone)
}

// settle records that a transfer is not at work. s.mu is held.
func (s *Transfers) settle(t *transfer) {
	if t.guest {
		t.guest = false
		s.untrusted--
	}
}
