package visitor

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

const (
	// burst is for how many seconds an address may have saved up requests.
	burst = 10

	// portion is how many bytes are written at once if there is a rate.
	portion = 16 << 10

	// patience is how long a request waits for another fill of its address to end.
	patience = 10 * time.Second

	// maxAddresses bounds the addresses that are known. Those that ask for nothing are forgotten after
	// idleLife, when their limits are as new.
	maxAddresses = 65_536
	idleLife     = time.Minute

	// maxActive bounds the requests of all addresses at a time. By HTTP/2 the connections that a site may
	// have could bring a hundred times as many, from the many networks that one IPv6 host may have.
	maxActive = 4096
)

// address is what one address has used of its limits. The mutex of the Site guards it, apart from
// what is safe for concurrent use itself.
type address struct {
	limits   Limits
	requests *rate.Limiter // nil: no limit
	bytes    *rate.Limiter // nil: no limit
	fills    chan struct{} // nil: no limit
	active   int
	last     time.Time
}

// limit puts limits in force for what comes next.
func (a *address) limit(l Limits) {
	a.limits, a.requests, a.bytes, a.fills = l, nil, nil, nil
	if l.Requests > 0 {
		a.requests = rate.NewLimiter(rate.Limit(l.Requests), burst*l.Requests)
	}
	if l.Rate > 0 {
		a.bytes = rate.NewLimiter(rate.Limit(l.Rate), int(max(l.Rate, portion)))
	}
	if l.Fills > 0 {
		a.fills = make(chan struct{}, l.Fills)
	}
}

// enter counts a request of v's address.
func (s *Site) enter(v *Visit, limits Limits) error {
	crowded := &oci.Error{Code: oci.Unavailable, Status: http.StatusServiceUnavailable, Message: "too many visitors ask at the moment"}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active >= maxActive {
		return crowded
	}
	now := s.now()
	a := s.addresses[v.from]
	if a == nil {
		if !s.roomForAddress(now) {
			return crowded
		}
		a = &address{}
		a.limit(limits)
		s.addresses[v.from] = a
	}
	if a.limits != limits {
		a.limit(limits)
	}
	a.last = now
	if limits.Connections > 0 && a.active >= limits.Connections {
		return tooMany("too many requests of your address are under way", time.Second)
	}
	if a.requests != nil {
		if wait := a.requests.ReserveN(now, 1); wait.DelayFrom(now) > 0 {
			delay := wait.DelayFrom(now)
			wait.CancelAt(now)
			return tooMany("your address sends too many requests", delay)
		}
	}
	a.active++
	s.active++
	v.site, v.address = s, a
	v.bytes, v.fills = a.bytes, a.fills
	return nil
}

// roomForAddress reports whether there is room for one more address. s.mu must be locked.
func (s *Site) roomForAddress(now time.Time) bool {
	if len(s.addresses) < maxAddresses {
		return true
	}
	for from, a := range s.addresses {
		if a.active == 0 && now.Sub(a.last) > idleLife {
			delete(s.addresses, from)
		}
	}
	// It must not look through all of them for each request.
	for from, a := range s.addresses {
		if len(s.addresses) < maxAddresses-maxAddresses/4 {
			break
		}
		if a.active == 0 {
			delete(s.addresses, from)
		}
	}
	return len(s.addresses) < maxAddresses
}

func tooMany(message string, after time.Duration) error {
	return &oci.Error{Code: oci.TooManyRequests, Message: message, RetryAfter: max(after, time.Second)}
}

// leave ends a request.
func (s *Site) leave(a *address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.active--
	s.active--
	a.last = s.now()
}

// take takes one of the fills that are possible at a time.
func take(ctx context.Context, fills chan struct{}) error {
	select {
	case fills <- struct{}{}:
		return nil
	default:
	}
	wait := time.NewTimer(patience)
	defer wait.Stop()
	select {
	case fills <- struct{}{}:
		return nil
	case <-wait.C:
		return tooMany("too many blobs are being fetched for your address", patience)
	case <-ctx.Done():
		return ctx.Err()
	}
}
