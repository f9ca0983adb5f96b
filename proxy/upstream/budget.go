package upstream

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/observe"
)

const (
	// maxLimit bounds what a registry says of its rate limit.
	maxLimit = 1 << 40

	// firstUnixTime tells apart the two forms of RateLimit-Reset: seconds from now, and Unix time.
	firstUnixTime = 1 << 30
)

// noteRateLimit reports what resp, the response to r, says about the upstream's rate limit.
func (u *Upstream) noteRateLimit(r Request, resp *http.Response) {
	l, ok := RateLimitOf(resp, time.Now())
	if !ok {
		return
	}
	l.Upstream, l.Registry, l.Identity = u.label, u.registry, r.whose()
	u.observer.RateLimited(l)
}

// whose returns in a word whose identity r is sent in.
func (r Request) whose() string {
	switch {
	case r.Access == nil && !r.Authorization.IsZero():
		return "client"
	case r.Access != nil && !r.Access.Credential.IsZero(), r.Certificate:
		return "login"
	}
	return "anonymous"
}

// RateLimitOf reads the header fields by which Docker Hub ("100;w=21600") and GitLab (plain numbers, and
// RateLimit-Reset) report their limits. A 429 without them means that nothing remains.
func RateLimitOf(resp *http.Response, now time.Time) (l observe.RateLimit, ok bool) {
	l = observe.RateLimit{Limit: -1, Seen: now}
	refused := resp.StatusCode == http.StatusTooManyRequests
	if l.Remaining, _, ok = readQuota(resp.Header.Get("Ratelimit-Remaining")); !ok && !refused {
		return l, false
	}
	if limit, window, ok := readQuota(resp.Header.Get("Ratelimit-Limit")); ok {
		l.Limit, l.Window = limit, window
	}
	if reset, err := strconv.ParseInt(resp.Header.Get("Ratelimit-Reset"), 10, 64); err == nil && reset >= 0 && reset < maxLimit {
		if l.Reset = now.Add(time.Duration(min(reset, firstUnixTime)) * time.Second); reset >= firstUnixTime {
			l.Reset = time.Unix(reset, 0)
		}
	}
	if refused {
		l.Remaining = 0
		if wait := auth.RetryAfter(resp.Header, now); wait > 0 {
			l.Reset = now.Add(wait)
		}
	}
	return l, true
}

// readQuota reads a number and the window that may follow it.
func readQuota(text string) (n int64, window time.Duration, ok bool) {
	number, rest, _ := strings.Cut(text, ";")
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || n < 0 || n > maxLimit {
		return 0, 0, false
	}
	for parameter := range strings.SplitSeq(rest, ";") {
		value, is := strings.CutPrefix(strings.TrimSpace(parameter), "w=")
		if seconds, err := strconv.ParseInt(value, 10, 32); is && err == nil && seconds > 0 {
			window = time.Duration(seconds) * time.Second
		}
	}
	return n, window, true
}
