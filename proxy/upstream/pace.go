package upstream

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// paceSamples is how many of the last times to the first byte are remembered, and fewest is how
	// many there must be to say what is usual.
	paceSamples, fewest = 32, 5

	// shortestUsual and longestUsual bound how long an upstream may take before the next one is asked
	// too. An upstream that is not known yet has the longest.
	shortestUsual, longestUsual = 20 * time.Millisecond, time.Second

	// hedgeShare is which share of the requests to an upstream may be sent to the next one too, and
	// mostHedges how many that may be in a row. One that waits for longestUsual always may.
	hedgeShare, mostHedges = 0.05, 3

	// An upstream is slower than the next one if its median is slowFactor times that of the next one
	// and slowMargin.
	slowFactor, slowMargin = 1.5, 20 * time.Millisecond

	// firstSkip and longestSkip bound for how long an upstream is skipped before it is tried again in
	// the background. Each time is twice the one before.
	firstSkip, longestSkip = 5 * time.Second, 5 * time.Minute

	// trialLimit is how long such a trial may take.
	trialLimit = 10 * time.Second
)

// kind is what the time to the first byte is counted for.
type kind int

const (
	ofManifest kind = iota
	ofBlob
	kinds
)

// skip is why an upstream is skipped.
type skip int

const (
	skipNot    skip = iota
	skipSlow        // it responds later than the next one
	skipSilent      // it did not respond while the next one did
)

// pace knows how long an upstream takes to send the first byte, and whether it is skipped for that.
// It is of use only in a pool of several. Its zero value knows nothing.
type pace struct {
	mu    sync.Mutex
	took  [kinds]samples
	spent float64 // hedges, less those that its requests allow

	why    skip
	until  time.Time // when it is tried again
	times  int       // that it was skipped, in a row
	trying bool

	base time.Duration // for tests; 0 is firstSkip
}

// samples are the last times to the first byte.
type samples struct {
	last []time.Duration
	at   int
}

func (s *samples) add(d time.Duration) {
	if len(s.last) < paceSamples {
		s.last = append(s.last, d)
		return
	}
	s.last[s.at] = d
	s.at = (s.at + 1) % paceSamples
}

// quantile returns the time that a share of the samples does not exceed. ok is false if there are too
// few.
func (s *samples) quantile(share float64) (d time.Duration, ok bool) {
	if len(s.last) < fewest {
		return 0, false
	}
	sorted := slices.Clone(s.last)
	slices.Sort(sorted)
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)], true
}

// add records a time to the first byte.
func (p *pace) add(k kind, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took[k].add(d)
	p.spent = max(p.spent-hedgeShare, 0)
}

// usual returns the time that nine of ten requests do not exceed.
func (p *pace) usual(k kind) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, ok := p.took[k].quantile(0.9)
	if !ok {
		return longestUsual
	}
	return min(max(d, shortestUsual), longestUsual)
}

// median returns the median time. ok is false if too little is known.
func (p *pace) median(k kind) (d time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.took[k].quantile(0.5)
}

// spend reports whether a request may be hedged now, and counts it.
func (p *pace) spend() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spent > mostHedges-1 {
		return false
	}
	p.spent++
	return true
}

// skipped returns why the upstream is skipped.
func (p *pace) skipped() skip {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.why
}

// skip makes the upstream be skipped. It reports whether it was not before.
func (p *pace) skip(why skip) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why != skipNot {
		return false
	}
	if time.Since(p.until) > longestSkip { // it was well for long enough
		p.times = 0
	}
	p.why = why
	p.rest()
	return true
}

// rest sets when the upstream is tried again. p.mu is held.
func (p *pace) rest() {
	base := p.base
	if base == 0 {
		base = firstSkip
	}
	p.until = time.Now().Add(min(base<<min(p.times, 8), longestSkip))
	p.times++
}

// due reports whether the upstream is skipped and should be tried again now. The caller must do so and
// call tried.
func (p *pace) due() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why == skipNot || p.trying || time.Now().Before(p.until) {
		return false
	}
	p.trying = true
	return true
}

// tried records how a trial went: well if the upstream responded within the limit. It reports whether
// the upstream is skipped no more.
func (p *pace) tried(k kind, took time.Duration, well bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trying = false
	if !well {
		p.rest()
		return false
	}
	p.why, p.until = skipNot, time.Now()
	p.took = [kinds]samples{}
	p.took[k].add(took)
	return true
}

// SkippedError is why an upstream is skipped for a while.
type SkippedError struct {
	Upstream, Other string // as [Upstream.Host] returns them
	Took, Usual     time.Duration
	Silent          bool // it has not responded at all
}

// Error implements error.
func (e *SkippedError) Error() string {
	if e.Silent {
		return fmt.Sprintf("no response after %s, while %s responded", e.Took.Round(time.Millisecond), e.Other)
	}
	return fmt.Sprintf("it takes %s to respond, and %s takes %s", e.Took.Round(time.Millisecond), e.Other, e.Usual.Round(time.Millisecond))
}
