package auth

import (
	"context"
	"sync"
	"time"
)

const (
	maxRefusals    = 1024
	firstRefusal   = time.Minute
	longestRefusal = 30 * time.Minute
)

// refusals remembers which credentials were refused, so that a wrong password costs one
// failed login and not one at each pull: Docker Hub locks accounts. A changed credential
// is a new generation, which starts without refusals.
//
// Some token servers answer 401 for a repository that a valid login may not see. A
// generation that was accepted after its last refusal is therefore held back for the
// refused scope only, and for every scope if it is refused again.
type refusals struct {
	mu     sync.Mutex
	stored map[tokenKey]refusal
	proven map[string]bool
	trials map[string]chan struct{} // under way; closed when they end
}

type refusal struct {
	until time.Time
	wait  time.Duration
	words string // of the registry
}

// trial lets one caller at a time try a generation that is not proven yet, so that a
// hundred pulls with a wrong password cost one failed login too. It returns when the
// generation is proven, is held back, or may be tried by the caller, who must call end
// after the attempt, whatever its outcome.
func (r *refusals) trial(ctx context.Context, generation, scope string) (end func(), err error) {
	for generation != "" {
		r.mu.Lock()
		if held, _ := r.isHeld(generation, scope); held || r.proven[generation] {
			r.mu.Unlock()
			break
		}
		other := r.trials[generation]
		if other == nil {
			return r.begin(generation), nil
		}
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-other:
		}
	}
	return func() {}, nil
}

// begin starts a trial and unlocks r.mu.
func (r *refusals) begin(generation string) (end func()) {
	defer r.mu.Unlock()
	mine := make(chan struct{})
	if r.trials == nil {
		r.trials = map[string]chan struct{}{}
	}
	r.trials[generation] = mine
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.trials, generation)
		close(mine)
	}
}

// refuse records that generation was refused for scope, with those words.
func (r *refusals) refuse(generation, scope, words string) {
	if generation == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stored == nil || len(r.stored) >= maxRefusals {
		r.stored = map[tokenKey]refusal{}
	}
	key := tokenKey{generation, ""}
	if r.proven[generation] {
		key.scope = scope
		delete(r.proven, generation)
	}
	now, old := time.Now(), r.stored[key]
	if now.Before(old.until) { // two requests were refused at once
		return
	}
	wait := min(max(2*old.wait, firstRefusal), longestRefusal)
	r.stored[key] = refusal{now.Add(wait), wait, words}
}

// prove records that generation was accepted.
func (r *refusals) prove(generation string) {
	if generation == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.proven == nil || len(r.proven) >= maxRefusals {
		r.proven = map[string]bool{}
	}
	r.proven[generation] = true
	delete(r.stored, tokenKey{generation, ""})
}

// holds reports whether generation must not be tried for scope yet, and with what words it was
// refused.
func (r *refusals) holds(generation, scope string) (held bool, words string) {
	if generation == "" {
		return false, ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.isHeld(generation, scope)
}

func (r *refusals) isHeld(generation, scope string) (held bool, words string) {
	now := time.Now()
	for _, key := range []tokenKey{{generation, ""}, {generation, scope}} {
		if known := r.stored[key]; now.Before(known.until) {
			return true, known.words
		}
	}
	return false, ""
}
