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
// its 429s. What was said to a connection that only makes pulls quicker may be about the number of
// connections: it counts for other such connections alone, and keeps no pull waiting.
type holds struct {
	mu    sync.Mutex
	until map[holder]time.Time
}

// holder is who must not ask an upstream for a while.
type holder struct {
	identity string
	extra    bool // only with connections that make pulls quicker
}

func (r Request) isExtra() bool { return r.Separate || r.Ahead }

// note records what resp, the response to r, says.
func (h *holds) note(r Request, resp *http.Response) {
	if resp.StatusCode != http.StatusTooManyRequests {
		return
	}
	now := time.Now()
	wait := auth.RetryAfter(resp.Header, now)
	if wait == 0 {
		if r.isExtra() {
			return
		}
		wait = defaultHold
	}
	who := holder{r.identity(), r.isExtra()}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.until == nil {
		h.until = map[holder]time.Time{}
	}
	h.until[who] = now.Add(wait)
	h.bound(who, now)
}

// bound removes holds if there are too many: those that are over, and then one of a client's own
// token. A client that makes up tokens must not end the holds of others.
func (h *holds) bound(newest holder, now time.Time) {
	if len(h.until) <= maxHolds {
		return
	}
	victim := newest
	for who, until := range h.until {
		switch {
		case !now.Before(until):
			delete(h.until, who)
		case who != newest && auth.IsFingerprint(who.identity):
			victim = who
		}
	}
	if len(h.until) > maxHolds {
		delete(h.until, victim)
	}
}

// left returns for how long the upstream must not be asked for r.
func (h *holds) left(r Request) time.Duration {
	identity := r.identity()
	h.mu.Lock()
	defer h.mu.Unlock()
	left := time.Until(h.until[holder{identity, false}])
	if r.isExtra() {
		left = max(left, time.Until(h.until[holder{identity, true}]))
	}
	return left
}
