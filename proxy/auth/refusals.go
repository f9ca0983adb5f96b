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

// refusals remembers which credentials were refused, so that a wrong password costs
// one failed login and not one a pull: Docker Hub locks accounts. New material is
// a new generation and starts afresh.
//
// Some token servers say 401 for a repository that a good login may not see. So a
// generation that has been let in since it was last refused is held back for the
// refused scope alone, and for every scope if it is refused again.
type refusals struct {
	mu     sync.Mutex
	kept   map[tokenKey]refusal
	proven map[string]bool
	trials map[string]chan struct{} // under way; closed at their end
}

type refusal struct {
	until time.Time
	wait  time.Duration
}

// trial lets one caller at a time try a generation that is not proven yet, so that
// a hundred pulls at once with a wrong password are one failed login too. It
// returns when the generation is proven, is held back, or is the caller's to try;
// end must be called when it has been, whatever came of it.
func (r *refusals) trial(ctx context.Context, generation, scope string) (end func(), err error) {
	for generation != "" {
		r.mu.Lock()
		if r.proven[generation] || r.isHeld(generation, scope) {
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

// begin begins a trial, and unlocks.
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

// refuse notes that generation was refused for scope.
func (r *refusals) refuse(generation, scope string) {
	if generation == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept == nil || len(r.kept) >= maxRefusals {
		r.kept = map[tokenKey]refusal{}
	}
	key := tokenKey{generation, ""}
	if r.proven[generation] {
		key.scope = scope
		delete(r.proven, generation)
	}
	now, old := time.Now(), r.kept[key]
	if now.Before(old.until) { // two requests were told the same at once
		return
	}
	wait := min(max(2*old.wait, firstRefusal), longestRefusal)
	r.kept[key] = refusal{now.Add(wait), wait}
}

// prove notes that generation was let in.
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
	delete(r.kept, tokenKey{generation, ""})
}

// holds reports whether generation is not to be tried for scope yet.
func (r *refusals) holds(generation, scope string) bool {
	if generation == "" {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.isHeld(generation, scope)
}

func (r *refusals) isHeld(generation, scope string) bool {
	now := time.Now()
	return now.Before(r.kept[tokenKey{generation, ""}].until) || now.Before(r.kept[tokenKey{generation, scope}].until)
}
