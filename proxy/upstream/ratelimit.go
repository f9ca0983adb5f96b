package upstream

import (
	"net/http"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/proxy/auth"
)

const (
	maxHolds = 256
	// defaultHold follows a 429 that does not say how long to wait: long enough to spare the
	// requests of one pull, and too short to be noticed.
	defaultHold = 5 * time.Second
)

// holds remembers until when an upstream must not be asked in which identity: the Retry-After of
// its 429s.
type holds struct {
	mu    sync.Mutex
	until map[string]time.Time
}

// note records what resp, the response to r, says. A 429 that does not say how long to wait, to a
// connection that only makes pulls quicker, may be about the number of connections: it must not keep
// other requests waiting.
func (h *holds) note(r Request, resp *http.Response) {
	if resp.StatusCode != http.StatusTooManyRequests {
		return
	}
	now := time.Now()
	wait := auth.RetryAfter(resp.Header, now)
	if wait == 0 {
		if r.Separate || r.Ahead {
			return
		}
		wait = defaultHold
	}
	identity := r.identity()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.until == nil {
		h.until = map[string]time.Time{}
	}
	h.until[identity] = now.Add(wait)
	h.bound(identity, now)
}

// bound removes holds if there are too many: those that are over, and then one of a client's own
// token. A client that makes up tokens must not end the holds of others.
func (h *holds) bound(newest string, now time.Time) {
	if len(h.until) <= maxHolds {
		return
	}
	victim := newest
	for identity, until := range h.until {
		switch {
		case !now.Before(until):
			delete(h.until, identity)
		case identity != newest && auth.IsFingerprint(identity):
			victim = identity
		}
	}
	if len(h.until) > maxHolds {
		delete(h.until, victim)
	}
}

// left returns for how long the upstream must not be asked in identity.
func (h *holds) left(identity string) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Until(h.until[identity])
}
