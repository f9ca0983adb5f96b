package transfer

import (
	"sync"
	"time"
)

const (
	// condemnedFor is for how long an upstream that sent wrong bytes of a blob, or broke off again
	// and again, is not asked for that blob while there is another one.
	condemnedFor = time.Hour

	// singleFor is for how long an upstream that refused a second connection gets one at a time.
	singleFor = 10 * time.Minute

	// maxLapses bounds how many are remembered.
	maxLapses = 4096
)

// lapses remembers what went wrong, for a time. The clock is monotonic: setting the machine's
// changes nothing.
type lapses struct {
	last time.Duration

	mu    sync.Mutex
	until map[string]time.Time
}

func (l *lapses) add(key string) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.until == nil {
		l.until = map[string]time.Time{}
	}
	if len(l.until) >= maxLapses {
		var oldest string
		for k, t := range l.until {
			if !now.Before(t) {
				delete(l.until, k)
			} else if oldest == "" || t.Before(l.until[oldest]) {
				oldest = k
			}
		}
		if len(l.until) >= maxLapses {
			delete(l.until, oldest)
		}
	}
	l.until[key] = now.Add(l.last)
}

func (l *lapses) has(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.until[key]
	if ok && !time.Now().Before(t) {
		delete(l.until, key)
		ok = false
	}
	return ok
}
