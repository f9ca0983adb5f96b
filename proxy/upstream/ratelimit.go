package upstream

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/proxy/auth"
)

const (
	maxIdentities = 256
	// defaultHold follows a 429 that does not say how long to wait: long enough to spare the
	// requests of one pull, and too short to be noticed.
	defaultHold = 5 * time.Second
)

// RateLimit is what an upstream last said of its limits (Docker Hub's
// ratelimit-limit, ratelimit-remaining, docker-ratelimit-source).
type RateLimit struct {
	Limit, Remaining int           // pulls; -1 if unknown
	Window           time.Duration // 0 if unknown
	Source           string        // an address or an account
	Seen             time.Time
	RetryAt          time.Time // zero, or until when the upstream is not asked
}

// limits are the rate limits of one upstream, by identity.
type limits struct {
	mu   sync.Mutex
	seen map[string]RateLimit
}

// note records what resp says.
func (l *limits) note(identity string, resp *http.Response) {
	limited := resp.StatusCode == http.StatusTooManyRequests
	if !limited && resp.Header.Get("Ratelimit-Remaining") == "" && resp.Header.Get("Ratelimit-Limit") == "" {
		return
	}
	now := time.Now()
	r := RateLimit{Source: short(resp.Header.Get("Docker-Ratelimit-Source")), Seen: now}
	r.Limit, r.Window = parseLimit(resp.Header.Get("Ratelimit-Limit"))
	r.Remaining, _ = parseLimit(resp.Header.Get("Ratelimit-Remaining"))
	if limited {
		wait := auth.RetryAfter(resp.Header, now)
		if wait == 0 {
			wait = defaultHold
		}
		r.RetryAt = now.Add(wait)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil || len(l.seen) >= maxIdentities {
		l.seen = map[string]RateLimit{}
	}
	l.seen[identity] = r
}

// held returns for how long the upstream must not be asked in identity.
func (l *limits) held(identity string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Until(l.seen[identity].RetryAt)
}

func (l *limits) all() map[string]RateLimit {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]RateLimit, len(l.seen))
	for k, v := range l.seen {
		all[k] = v
	}
	return all
}

// parseLimit reads "100;w=21600": a count, and the seconds that it is for.
func parseLimit(s string) (count int, window time.Duration) {
	number, params, _ := strings.Cut(s, ";")
	count, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil || count < 0 {
		return -1, 0
	}
	if w, ok := strings.CutPrefix(strings.TrimSpace(params), "w="); ok {
		if seconds, err := strconv.ParseUint(w, 10, 31); err == nil {
			window = time.Duration(seconds) * time.Second
		}
	}
	return count, window
}

func short(s string) string {
	const most = 64
	return s[:min(len(s), most)]
}
