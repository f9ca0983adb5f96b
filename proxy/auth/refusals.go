package auth

import (
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
}

type refusal struct {
	until time.Time
	wait  time.Duration
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
	now := time.Now()
	return now.Before(r.kept[tokenKey{generation, ""}].until) || now.Before(r.kept[tokenKey{generation, scope}].until)
}
