package upstream

import (
	"cmp"
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

	// firstTruce and longestTruce bound for how long an upstream that was as good is not compared
	// again. The first one is short: what comes first fills the buffers on the way, and looks fast.
	firstTruce, longestTruce = time.Second, time.Minute
)

// kind is what the time to the first byte is counted for.
type kind int

const (
	ofManifest kind = iota
	ofBlob
	kinds
)

// subject is in what an upstream is compared with the next one: in the time to the first byte of a kind,
// or in the bytes that it sends.
type subject int

const (
	ofBytes  = subject(kinds)
	subjects = ofBytes + 1
)

// compared is what is known of comparisons.
type compared struct {
	running bool
	until   time.Time // when the outcome no longer counts
	held    int       // how often in a row it was as good
}

// skip is why an upstream is skipped.
type skip int

const (
	skipNot    skip = iota
	skipSlow        // it responds later than the next one
	skipSilent      // it did not respond while the next one did
	skipThin        // it sends fewer bytes per second than the next one
)

// pace knows how long an upstream takes to send the first byte, and whether it is skipped for that.
// It is of use only in a pool of several. Its zero value knows nothing.
type pace struct {
	meter meter // of the bodies

	mu    sync.Mutex
	took  [kinds]samples
	spent float64 // hedges, less those that its requests allow

	why    skip
	of     kind      // what it is skipped for
	until  time.Time // when it is tried again
	times  int       // that it was skipped, in a row
	trying bool

	compared [subjects]compared // with the next one

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
func (s *samples) quantile(share float64) (d time.Duration, ok bool) { return s.of(share, fewest) }

// of is quantile if there are at least so many samples.
func (s *samples) of(share float64, least int) (d time.Duration, ok bool) {
	if len(s.last) < least {
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

// typical is median for an upstream that was compared and asked for little else.
func (p *pace) typical(k kind) (d time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.took[k].of(0.5, rivalRounds)
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

// skip makes the upstream be skipped for what it did with requests of a kind. It reports whether it was
// not before.
func (p *pace) skip(why skip, of kind) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why != skipNot {
		return false
	}
	if time.Since(p.until) > longestSkip { // it was well for long enough
		p.times = 0
	}
	p.why, p.of = why, of
	p.rest()
	return true
}

// rest sets when the upstream is tried again. p.mu is held.
func (p *pace) rest() {
	p.until = time.Now().Add(min(cmp.Or(p.base, firstSkip)<<min(p.times, 8), longestSkip))
	p.times++
}

// due reports whether the upstream is skipped for requests of a kind and should be tried again now, and
// why it is. The caller must try it and call tried.
func (p *pace) due(k kind) (why skip, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why == skipNot || p.of != k || p.trying || time.Now().Before(p.until) {
		return skipNot, false
	}
	p.trying = true
	return p.why, true
}

// tried records how a trial went. It reports whether the upstream is skipped no more.
func (p *pace) tried(v verdict) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trying = false
	switch v {
	case undecided:
		p.until = time.Now().Add(firstTruce)
		return false
	case slower:
		p.rest()
		return false
	}
	p.why, p.until = skipNot, time.Now()
	p.took = [kinds]samples{}
	return true
}

// compare reports whether the upstream should be compared with the next one now. The caller must do so
// and call settle.
func (p *pace) compare(s subject) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &p.compared[s]
	if c.running || time.Now().Before(c.until) {
		return false
	}
	c.running = true
	return true
}

// settle records the outcome of a comparison. The next one follows the later, the more often in a row
// the upstream was as good.
func (p *pace) settle(s subject, v verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &p.compared[s]
	c.running = false
	wait := firstTruce
	switch v {
	case asGood:
		wait = min(cmp.Or(p.base, firstTruce)<<min(c.held, 8), longestTruce)
		c.held++
	case slower:
		wait = cmp.Or(p.base, firstSkip)
		c.held = 0
	}
	c.until = time.Now().Add(wait)
}
