package transfer

import "time"

const (
	// interval is how long a number of connections is measured, and firstInterval a single one.
	interval      = 500 * time.Millisecond
	firstInterval = interval / 2

	// worth is by which part of the throughput before it a connection must increase it.
	worth = 0.15
)

// ramp finds how many connections carry a blob the fastest. It adds some, and leaves as many as made
// a difference.
type ramp struct {
	most    int
	allowed int
	settled bool

	before     float64 // throughput with that many
	beforeWith int
}

// newRamp begins with one connection.
func newRamp(most int) ramp { return ramp{most: most, allowed: 1, settled: most <= 1} }

// interval returns how long the number of connections that is allowed is measured.
func (r *ramp) interval() time.Duration {
	if r.beforeWith == 0 && !r.settled {
		return firstInterval
	}
	return interval
}

// measured takes the throughput of the connections allowed, and decides how many are from now on.
func (r *ramp) measured(rate float64) {
	switch {
	case r.settled || rate <= 0:
		return
	case r.beforeWith > 0:
		added := r.allowed - r.beforeWith
		growth := rate/r.before - 1
		if growth < worth*float64(added) {
			r.allowed = r.beforeWith + min(added, max(0, int(growth/worth)))
			r.settled = true
			return
		}
	}
	r.before, r.beforeWith = rate, r.allowed
	// Four at first: with one more at a time most of a blob would have come before there are enough.
	if r.allowed = min(r.most, max(4, 2*r.allowed)); r.allowed == r.beforeWith {
		r.settled = true
	}
}

// restrict bounds the number from now on.
func (r *ramp) restrict(most int) {
	r.allowed, r.most, r.settled = min(r.allowed, most), most, true
}
