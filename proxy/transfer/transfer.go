package transfer

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/internal/extent"
	"github.com/sidemirror/sidemirror/proxy/cache"
)

// transfer is one blob that is fetched from one upstream.
type transfer struct {
	all    *Transfers
	want   Want // of the caller that began it
	names  []string
	life   context.Context
	end    context.CancelFunc
	gone   chan struct{} // closed when its files are closed and another one may begin
	opened chan struct{} // closed when the upstream has responded

	// Settled when opened is closed.
	openErr error
	from    string
	partial *cache.Partial
	sum     *prefix

	// Under all.mu.
	users   int  // readers, and callers that wait for opened
	trusted bool // a trusted caller wants it
	guest   bool // counted as an untrusted caller's
	idle    bool // counted as lingering

	mu       sync.Mutex
	isOpen   bool
	size     int64 // -1: unknown
	etag     string
	ranged   bool // the upstream serves ranges, as far as is known
	single   bool // and no second connection
	have     extent.Set
	conns    []*conn
	readers  []*Reader
	admitted map[string]func(string) // callers to which the upstream sent bytes, and their Verified
	last     Source                  // that of the latest connection
	ramp     ramp
	piece    int64         // how much an added connection fetches
	moved    int64         // bytes in the current measurement
	since    time.Time     // when that began
	tick     *time.Timer   // of the measurements
	progress chan struct{} // closed and replaced when there is more, or the end
	resumes  int
	fresh    int64 // bytes since the last resume
	paused   bool  // until the next resume
	finish   bool  // it is fetched to its end though no reader is there
	checking bool  // everything is there
	done     bool  // and verified
	closing  bool
	err      error
	active   sync.WaitGroup // connections
	linger   *time.Timer
}

func newTransfer(s *Transfers, want Want, names []string) *transfer {
	t := &transfer{
		all: s, want: want, names: names, users: 1, trusted: !want.Untrusted, guest: want.Untrusted,
		gone: make(chan struct{}), opened: make(chan struct{}), progress: make(chan struct{}),
		size: -1, admitted: map[string]func(string){}, piece: s.sizes.piece, ramp: newRamp(1),
	}
	t.life, t.end = context.WithCancel(context.Background())
	return t
}

// mayBeFrom returns the upstreams that it is, or may turn out to be, from.
func (t *transfer) mayBeFrom() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isOpen {
		return []string{t.from}
	}
	return t.names
}

// serves reports whether the transfer, which is open, is from one of want's upstreams.
func (t *transfer) serves(want Want, without []string) bool {
	return slices.Contains(want.Source.Upstreams(), t.from) && !slices.Contains(without, t.from)
}

// join counts one user more, unless the transfer is about to end. all.mu is held.
func (t *transfer) join(want Want) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing || t.err != nil {
		return false, nil
	}
	_, admitted := t.admitted[want.By]
	if !admitted && !want.Granted && (want.By != t.want.By || t.want.Granted) {
		return false, ErrForeign
	}
	t.users++
	if t.linger != nil {
		t.linger.Stop()
		t.linger = nil
	}
	if t.idle {
		t.idle = false
		t.all.lingering--
	}
	if !want.Untrusted {
		t.trusted = true
		t.all.settle(t)
		if t.isOpen && !t.done {
			t.partial.Trust()
		}
	}
	return true, nil
}

// leave ends one user; r is its reader, if it had one. When the last one leaves, the connections
// end, unless most of the blob is there: that is worth finishing.
func (t *transfer) leave(r *Reader) {
	s := t.all
	s.mu.Lock()
	defer s.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users--
	if r != nil {
		t.readers = slices.DeleteFunc(t.readers, func(other *Reader) bool { return other == r })
	}
	if t.users > 0 || t.checking || t.err != nil || t.closing || !t.isOpen {
		if t.users == 0 && !t.isOpen {
			t.end()
		}
		return
	}
	if r != nil && r.isWhole() && t.size >= 0 && 2*t.have.Bytes() > t.size {
		t.finish = true
		t.schedule()
		return
	}
	t.rest()
}

// rest ends the connections and waits a while for another reader. all.mu and t.mu are held.
func (t *transfer) rest() {
	for _, c := range t.conns {
		c.cancel()
	}
	t.all.settle(t)
	if t.linger != nil || t.closing {
		return
	}
	wait := lingers
	if t.all.lingering >= maxLingering || t.size < 0 || t.all.closed {
		wait = 0
	}
	t.idle = true
	t.all.lingering++
	t.linger = time.AfterFunc(wait, t.lapse)
}

// lapse closes a transfer that no reader has joined.
func (t *transfer) lapse() {
	s := t.all
	s.mu.Lock()
	t.mu.Lock()
	if t.users > 0 || !t.idle || t.checking || t.closing || s.closed {
		t.mu.Unlock()
		s.mu.Unlock()
		return
	}
	t.closing = true
	s.wait.Add(1)
	t.mu.Unlock()
	s.mu.Unlock()
	defer s.wait.Done()
	t.close(false)
}

// open finds what is present of the blob, or asks an upstream.
func (t *transfer) open() {
	c, part, err := t.first()
	t.all.mu.Lock()
	t.mu.Lock()
	trusted := t.trusted
	t.all.mu.Unlock()
	if err == nil && t.life.Err() != nil {
		err = context.Canceled // all have left
	}
	t.isOpen = true
	if err == nil && trusted {
		t.partial.Trust() // a trusted caller has joined meanwhile
	}
	if err != nil {
		t.openErr, t.closing, t.err = err, true, err
		close(t.opened)
		t.mu.Unlock()
		if part.Body != nil {
			_ = part.Body.Close()
		}
		t.close(false)
		return
	}
	t.sum = newPrefix(t.want.Digest)
	t.single = t.all.single.has(t.from)
	if t.many(t.want) {
		t.ramp = newRamp(t.want.Parallel)
	}
	close(t.opened)
	if c != nil {
		t.admitted[t.want.By] = t.want.Verified
		t.attach(c, part)
	}
	if t.complete() {
		t.check()
	}
	if behind := t.have.RunFrom(0); behind > 0 && !t.checking {
		partial, sum := t.partial, t.sum
		t.active.Go(func() { _ = sum.catchUp(partial, behind, true) })
	}
	t.mu.Unlock()
	t.all.mu.Lock()
	defer t.all.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users == 0 && t.err == nil && !t.checking && !t.closing {
		t.rest() // all have left while it was opened
	}
}

// first finds a partial blob that the caller may have, or opens a connection for what it wants.
func (t *transfer) first() (*conn, Part, error) {
	names := t.names
	for _, name := range names {
		p, err := t.all.dir.FindPartial(t.want.Digest, name, t.want.Untrusted)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, Part{}, errors.Join(cache.ErrStorage, err)
		}
		c, part, err := t.resume(name, p)
		if err == nil || errors.Is(err, ErrForeign) || errors.Is(err, context.Canceled) {
			return c, part, err
		}
		if names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name }); len(names) == 0 {
			if errors.Is(err, ErrMismatch) { // it is another size now
				names = []string{name}
				break
			}
			return nil, part, err
		}
	}
	part, err := t.ask(names)
	if err != nil {
		return nil, part, err
	}
	t.from, t.size, t.etag, t.ranged = part.From, part.Total, part.ETag, part.Ranged
	wanted, err := resolve(t.want.Ranges, t.size)
	if t.size >= 0 && err != nil {
		return nil, part, err
	}
	if t.partial, err = t.all.dir.CreatePartial(t.want.Digest, part.From, part.Total, t.isUntrusted()); err != nil {
		return nil, part, err
	}
	end := part.End
	if t.size < 0 {
		end = -1
	} else if end < 0 {
		end = t.size
	}
	if t.size >= 0 && len(t.want.Ranges) == 0 {
		err = t.partial.Reserve(t.life, extent.Extent{Start: 0, End: t.size})
	}
	if err != nil {
		return nil, part, err
	}
	if part.Start > 0 && (len(wanted) == 0 || part.Start > wanted[0].Start) {
		return nil, part, ErrMismatch
	}
	return t.newConn(part.Start, end, t.want), part, nil
}

// isUntrusted reports whether only untrusted callers want the blob so far.
func (t *transfer) isUntrusted() bool {
	t.all.mu.Lock()
	defer t.all.mu.Unlock()
	return !t.trusted
}

// resume uses a partial blob. If the caller has not shown that it may have the blob, the upstream
// must send it some of what is missing, or the caller must show it.
func (t *transfer) resume(name string, p *cache.Partial) (*conn, Part, error) {
	have := p.Present()
	wanted, err := resolve(t.want.Ranges, p.Size)
	if err != nil && !t.want.Granted || p.Size < 0 {
		wanted, err = []extent.Extent{{Start: 0, End: max(p.Size, 0)}}, nil
	}
	if err != nil {
		_ = p.Close()
		return nil, Part{}, err
	}
	var gap extent.Extent
	missing := false
	for _, e := range wanted {
		if gap, missing = have.Missing(e); missing {
			break
		}
	}
	if !missing && !t.want.Granted {
		_ = p.Close()
		return nil, Part{}, ErrForeign
	}
	var c *conn
	var part Part
	if !t.want.Granted {
		part, err = t.want.Source.Open(t.life, Range{gap.Start, gap.End}, Options{Only: name, Ahead: t.want.Ahead})
		t.all.requests.Add(1)
		switch {
		case err != nil:
			_ = p.Close()
			return nil, Part{}, err
		case part.Total >= 0 && part.Total != p.Size || part.Start > gap.Start:
			_ = part.Body.Close()
			p.Discard()
			return nil, Part{}, ErrMismatch
		}
		c = t.newConn(gap.Start, gap.End, t.want)
	}
	t.from, t.partial, t.have, t.size = name, p, have, p.Size
	t.etag, t.ranged = part.ETag, part.Ranged || part.Body == nil
	if len(t.want.Ranges) == 0 {
		if err := p.Reserve(t.life, extent.Extent{Start: 0, End: p.Size}); err != nil {
			return c, part, err
		}
	}
	return c, part, nil
}

// ask opens the first connection at one of the upstreams.
func (t *transfer) ask(names []string) (Part, error) {
	t.all.requests.Add(1)
	return openFirst(t.life, t.want, without(t.want.Source, names))
}

// without returns the upstreams of a source that are not among names.
func without(s Source, names []string) []string {
	return slices.DeleteFunc(slices.Clone(s.Upstreams()), func(name string) bool { return slices.Contains(names, name) })
}

// openFirst asks for the first of want's ranges that the blob has.
func openFirst(ctx context.Context, want Want, without []string) (Part, error) {
	r := whole
	if len(want.Ranges) > 0 {
		r = want.Ranges[0]
	}
	o := Options{Without: without, Ahead: want.Ahead}
	part, err := want.Source.Open(ctx, r, o)
	var none *UnsatisfiableError
	if errors.As(err, &none) && len(want.Ranges) > 1 {
		all, err := resolve(want.Ranges, none.Size)
		if err != nil {
			return part, err
		}
		part, err = want.Source.Open(ctx, Range(all[0]), o)
		if err != nil {
			return part, err
		}
	} else if err != nil {
		return part, err
	}
	if part.Total < 0 && part.Start > 0 {
		// Without the size nothing can be said of the range.
		_ = part.Body.Close()
		o.Only = part.From
		return want.Source.Open(ctx, whole, o)
	}
	return part, nil
}

// complete reports whether everything is there. t.mu is held.
func (t *transfer) complete() bool {
	return t.size >= 0 && t.have.Covers(extent.Extent{Start: 0, End: t.size})
}

// check verifies in the background what is complete. t.mu is held.
func (t *transfer) check() {
	if t.checking || t.err != nil {
		return
	}
	t.checking = true
	for _, c := range t.conns {
		c.cancel()
	}
	t.all.wait.Go(t.verify)
}

// verify compares with the digest, lets the last bytes go out, and stores the blob.
func (t *transfer) verify() {
	if err := t.sum.catchUp(t.partial, t.size, true); err != nil {
		t.fail(errors.Join(cache.ErrStorage, err))
		return
	}
	if !t.sum.verified() {
		t.all.refused.Add(t.size)
		t.fail(ErrMismatch)
		return
	}
	t.mu.Lock()
	all := slices.Collect(maps.Values(t.admitted))
	t.mu.Unlock()
	for _, verified := range all {
		if verified != nil {
			verified(t.from)
		}
	}
	t.mu.Lock()
	// The readers need not wait for the disk.
	t.done = t.err == nil
	t.wake()
	done := t.done
	t.mu.Unlock()
	if done {
		t.close(true)
	}
}

// fail ends the transfer with an error. Its readers may continue with another one.
func (t *transfer) fail(err error) {
	t.mu.Lock()
	if t.err != nil || t.done || t.closing {
		t.mu.Unlock()
		return
	}
	t.err, t.closing = err, true
	t.all.wait.Add(1)
	t.mu.Unlock()
	var broken *brokenError
	if errors.Is(err, ErrMismatch) || errors.As(err, &broken) {
		t.all.condemned.add(condemnedKey(t.want.Digest, t.from))
	}
	go func() {
		defer t.all.wait.Done()
		t.close(false)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.wake()
	}()
}

// close ends the connections, stores the blob or leaves what is present on disk, and makes way for
// another transfer.
func (t *transfer) close(commit bool) {
	t.end()
	t.mu.Lock()
	if t.tick != nil {
		t.tick.Stop()
	}
	err := t.err
	t.mu.Unlock()
	t.active.Wait()
	if t.partial != nil {
		switch {
		case commit:
			_ = t.partial.Commit() // what cannot be stored is fetched again
		case errors.Is(err, ErrMismatch), errors.Is(err, cache.ErrStorage), t.size < 0:
			t.partial.Discard()
		default:
			if err == nil || errors.Is(err, errClosed) {
				_ = t.partial.Sync() // no reader waits for it
			}
			_ = t.partial.Close()
		}
	}
	t.all.retire(t)
}

// wake wakes the readers. t.mu is held.
func (t *transfer) wake() {
	close(t.progress)
	t.progress = make(chan struct{})
}
