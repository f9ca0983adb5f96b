package upstream

import (
	"net/http"
	"sync"
	"time"
)

const (
	firstBackoff   = time.Second
	longestBackoff = time.Minute
)

// health remembers whether an upstream can be reached. One that cannot is left
// alone for a second, then two, up to a minute.
type health struct {
	changed func(error) // may be nil

	mu      sync.Mutex
	down    bool
	until   time.Time // of the back-off
	backoff time.Duration
	ailing  time.Time // until when an upstream that answered 502, 503 or 504 comes last
}

// failed notes that the upstream could not be reached.
func (h *health) failed(err error) {
	h.mu.Lock()
	now := time.Now()
	if !now.Before(h.until) { // of requests that fail together, one counts
		h.backoff = min(max(2*h.backoff, firstBackoff), longestBackoff)
		h.until = now.Add(h.backoff)
	}
	first := !h.down
	h.down = true
	h.mu.Unlock()
	if first && h.changed != nil {
		h.changed(err)
	}
}

// answered notes that the upstream answered.
func (h *health) answered(status int) {
	h.mu.Lock()
	was := h.down
	h.down, h.until, h.backoff = false, time.Time{}, 0
	switch status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		h.ailing = time.Now().Add(firstBackoff)
	default:
		h.ailing = time.Time{}
	}
	h.mu.Unlock()
	if was && h.changed != nil {
		h.changed(nil)
	}
}

// rank says how willingly the upstream is asked: 0 at once, 1 after the others, 2
// only if there is nobody else to ask.
func (h *health) rank() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	switch {
	case now.Before(h.until):
		return 2
	case now.Before(h.ailing):
		return 1
	}
	return 0
}
