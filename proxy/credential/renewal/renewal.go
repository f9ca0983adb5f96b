// Package renewal stores the logins that programs return, and renews them before they end, so that
// only the first pull waits for a program.
package renewal

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/proxy/credential"
)

const (
	// maxAnswers bounds the stored answers.
	maxAnswers = 1024
	// firstRest and longestRest bound the time between two tries after a failure.
	firstRest   = 2 * time.Second
	longestRest = 5 * time.Minute
	// replaceRest is how often a registry's refusal leads to another run of a program.
	replaceRest = 10 * time.Second
	// faultMemory is how long a failure is reported after the last request that it affected.
	faultMemory = time.Hour
)

// Answer is what a program returned.
type Answer struct {
	Credential credential.Credential // zero if the program has none

	// Life is how long the answer holds. It is renewed after three quarters of that. With 0 it is
	// not stored.
	Life time.Duration

	// Grace is how much longer the login serves while the program fails.
	Grace time.Duration
}

// Fetch runs a program. refused means that a registry did not accept the login that was returned
// before, so that one stored elsewhere is of no use.
type Fetch func(ctx context.Context, refused bool) (Answer, error)

// Answers are the answers of programs, each under a key. The zero value is empty.
type Answers struct {
	mu      sync.Mutex
	stored  map[string]*entry
	ctx     context.Context // of the fetches; made at the first
	cancel  context.CancelFunc
	closed  bool
	running sync.WaitGroup
}

// entry is what is known under a key.
type entry struct {
	Answer
	fetch    Fetch
	good     bool      // Answer is one, and may be stored
	renew    time.Time // when to fetch again
	end      time.Time // of Life
	used     time.Time // when a request last asked
	wanted   bool      // by a request since it was last renewed without one
	fault    error     // of the last fetch
	rest     time.Duration
	retry    time.Time // after a fault there is no fetch before
	replaced time.Time // when a refusal last led to a fetch
	timer    *time.Timer
	flight   *flight
}

// flight is a fetch under way, and its result when done is closed.
type flight struct {
	done       chan struct{}
	credential credential.Credential
	err        error
}

var (
	errClosed  = errors.New("the configuration was replaced while the request waited")
	errNothing = errors.New("it says that it has no login, which it had before; the last one is used until it ends")
)

// Get returns the credential stored under key, or the one that fetch returns. A stored one that
// should be renewed is renewed in the background. One fetch runs per key, on a context of its own,
// however many requests wait for it.
func (a *Answers) Get(ctx context.Context, key string, fetch Fetch) (credential.Credential, error) {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return credential.Credential{}, errClosed
	}
	e, now := a.entry(key), time.Now()
	e.used, e.wanted, e.fetch = now, true, fetch
	resting := e.fault != nil && now.Before(e.retry)
	switch {
	case e.usable(now):
		if !now.Before(e.renew) && !resting {
			a.begin(e, false)
		}
		c := e.Credential
		a.mu.Unlock()
		return a.renewable(key, c), nil
	case resting:
		err := e.fault
		a.mu.Unlock()
		return credential.Credential{}, err
	}
	f := a.begin(e, false)
	a.mu.Unlock()
	return a.wait(ctx, key, f)
}

// entry returns the entry of key, and makes it if there is none. a.mu is held.
func (a *Answers) entry(key string) *entry {
	if e := a.stored[key]; e != nil {
		return e
	}
	if a.stored == nil {
		a.stored = map[string]*entry{}
	}
	if len(a.stored) >= maxAnswers {
		a.evict()
	}
	e := &entry{}
	a.stored[key] = e
	return e
}

// evict removes the entry that was used longest ago. a.mu is held.
func (a *Answers) evict() {
	oldest := ""
	for key, e := range a.stored {
		if e.flight == nil && (oldest == "" || e.used.Before(a.stored[oldest].used)) {
			oldest = key
		}
	}
	if e := a.stored[oldest]; e != nil && e.timer != nil {
		e.timer.Stop()
	}
	delete(a.stored, oldest)
}

// usable reports whether the stored answer serves a request. A program that says that it has no
// login any more is believed when the one that it returned before has ended.
func (e *entry) usable(now time.Time) bool {
	end := e.end
	if e.fault != nil && !errors.Is(e.fault, errNothing) && !e.Credential.IsZero() {
		end = end.Add(e.Grace)
	}
	return e.good && now.Before(end)
}

// renewable returns c with the way to renew it if a registry refuses it.
func (a *Answers) renewable(key string, c credential.Credential) credential.Credential {
	if c.IsZero() {
		return c
	}
	return c.WithRenewal(func(ctx context.Context) (credential.Credential, error) { return a.replace(ctx, key, c) })
}

// replace returns another credential than refused, which a registry did not accept. It fetches one
// unless that was done already, or was tried a moment ago.
func (a *Answers) replace(ctx context.Context, key string, refused credential.Credential) (credential.Credential, error) {
	a.mu.Lock()
	e, now := a.stored[key], time.Now()
	switch {
	case a.closed || e == nil:
		a.mu.Unlock()
		return credential.Credential{}, nil
	case e.good && e.Credential.Generation != refused.Generation:
		c := e.Credential
		a.mu.Unlock()
		return a.renewable(key, c), nil
	case e.flight == nil && (now.Before(e.replaced.Add(replaceRest)) || e.fault != nil && now.Before(e.retry)):
		a.mu.Unlock()
		return credential.Credential{}, nil
	}
	e.replaced = now
	f := a.begin(e, true)
	a.mu.Unlock()
	return a.wait(ctx, key, f)
}

// begin returns the fetch of e that is under way, and starts one if there is none. a.mu is held.
func (a *Answers) begin(e *entry, refused bool) *flight {
	if e.flight != nil {
		return e.flight
	}
	if a.ctx == nil {
		a.ctx, a.cancel = context.WithCancel(context.Background())
	}
	f, ctx, fetch := &flight{done: make(chan struct{})}, a.ctx, e.fetch
	e.flight = f
	a.running.Go(func() {
		answered, err := fetch(ctx, refused)
		a.mu.Lock()
		defer a.mu.Unlock()
		e.flight = nil
		f.credential, f.err = a.settle(e, answered, err)
		close(f.done)
	})
	return f
}

// settle stores what a fetch returned, and returns what its requests get. a.mu is held.
func (a *Answers) settle(e *entry, answered Answer, err error) (credential.Credential, error) {
	now := time.Now()
	if err == nil && answered.Credential.IsZero() && !e.Credential.IsZero() && e.good && now.Before(e.end) {
		err = errNothing
	}
	if err != nil {
		e.fault = err
		e.rest = min(max(2*e.rest, firstRest), longestRest)
		e.retry = now.Add(e.rest)
		if e.usable(now) {
			a.schedule(e, e.rest)
			return e.Credential, nil
		}
		return credential.Credential{}, err
	}
	e.Answer, e.fault, e.rest = answered, nil, 0
	e.good = answered.Life > 0
	e.renew, e.end = now.Add(answered.Life*3/4), now.Add(answered.Life)
	if e.good && !answered.Credential.IsZero() {
		a.schedule(e, answered.Life*3/4)
	}
	return answered.Credential, nil
}

// schedule renews e after a while, if a request wants it. a.mu is held.
func (a *Answers) schedule(e *entry, after time.Duration) {
	if e.timer != nil {
		e.timer.Stop()
	}
	if a.closed {
		return
	}
	e.timer = time.AfterFunc(after, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if !a.closed && e.wanted {
			e.wanted = false
			a.begin(e, false)
		}
	})
}

// wait returns the result of f, or the reason of ctx's end.
func (a *Answers) wait(ctx context.Context, key string, f *flight) (credential.Credential, error) {
	select {
	case <-ctx.Done():
		return credential.Credential{}, ctx.Err()
	case <-f.done:
		return a.renewable(key, f.credential), f.err
	}
}

// Fault returns why programs failed when they were last run, or nil.
func (a *Answers) Fault() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var faults []error
	seen := map[string]bool{}
	for _, e := range a.stored {
		if e.fault != nil && time.Since(e.used) < faultMemory && !seen[e.fault.Error()] {
			seen[e.fault.Error()] = true
			faults = append(faults, e.fault)
		}
	}
	return errors.Join(faults...)
}

// Close ends the fetches under way and waits for them.
func (a *Answers) Close() {
	a.mu.Lock()
	a.closed = true
	if a.cancel != nil {
		a.cancel()
	}
	for _, e := range a.stored {
		if e.timer != nil {
			e.timer.Stop()
		}
	}
	a.mu.Unlock()
	a.running.Wait()
}
