package transfer

import (
	"context"
	"errors"
	"io"
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

	detached func() bool // lets the first connection outlive the transfer

	// Under all.mu.
	users   int  // readers, and callers that wait for opened
	trusted bool // a trusted caller wants it
	guest   bool // counted as an untrusted caller's
	idle    bool // counted as lingering

	mu       sync.Mutex
	isOpen   bool
	spare    *spareSource // has what was opened and cannot be stored
	size     int64        // -1: unknown
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
		if t.users == 0 {
			t.spare.close()
		}
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
	t.active.Go(t.verify)
}

// verify compares with the digest, lets the last bytes go out, and stores the blob.
func (t *transfer) verify() {
	if err := t.sum.catchUp(t.untilEnd(), t.size, true); err != nil {
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
	defer t.mu.Unlock()
	if t.err != nil {
		return
	}
	t.done = true
	t.wake()
	// The readers need not wait for the disk.
	t.all.wait.Add(1)
	go func() {
		defer t.all.wait.Done()
		t.close(true)
	}()
}

// untilEnd returns the partial blob, which cannot be read when the transfer ends.
func (t *transfer) untilEnd() io.ReaderAt { return endingReader{t.partial, t.life} }

type endingReader struct {
	io.ReaderAt
	life context.Context
}

// ReadAt implements [io.ReaderAt].
func (r endingReader) ReadAt(b []byte, off int64) (int, error) {
	if err := r.life.Err(); err != nil {
		return 0, err
	}
	return r.ReaderAt.ReadAt(b, off)
}

// fail ends the transfer with an error. Its readers may continue with another one.
func (t *transfer) fail(err error) {
	t.mu.Lock()
	if !t.isOpen {
		t.end() // it ends when the upstream has responded
	}
	if t.err != nil || t.done || t.closing || !t.isOpen {
		t.mu.Unlock()
		return
	}
	t.err, t.closing = err, true
	t.all.wait.Add(1)
	needed := len(t.readers) > 0 // otherwise the caller in whose name it asks may be gone
	t.mu.Unlock()
	var broken *brokenError
	if errors.Is(err, ErrMismatch) || errors.As(err, &broken) && needed {
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
			if t.partial.Commit() == nil && t.want.Stored != nil { // what cannot be stored is fetched again
				t.want.Stored(t.from)
			}
		case errors.Is(err, ErrMismatch), isSlow(err), t.size < 0:
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
