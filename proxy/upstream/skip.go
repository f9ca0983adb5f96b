package upstream

import (
	"context"
	"time"
)

// learn records how long an attempt took.
func (q *query) learn(k kind, a *attempt) {
	if a.err != nil { // its failure is another matter
		return
	}
	a.upstream.pace.add(k, a.took)
	q.compare(k)
	if a.good() {
		q.suspect(a.upstream, k, a.took)
	}
}

// compare skips the upstreams that are slower than the next one.
func (q *query) compare(k kind) {
	p := q.turns.pool
	for i, u := range p[:len(p)-1] {
		v := p[i+1]
		if u.pace.skipped() != skipNot || v.pace.skipped() != skipNot || v.health.isDown() {
			continue
		}
		took, known := u.pace.median(k)
		other, otherKnown := v.pace.median(k)
		if known && otherKnown && took > limitOf(other) {
			u.skip(skipSlow, k, &SkippedError{Upstream: u.label, Other: v.label, Took: took, Usual: other})
		}
	}
}

// limitOf returns how long an upstream may take if another one takes so long.
func limitOf(other time.Duration) time.Duration {
	return time.Duration(slowFactor*float64(other)) + slowMargin
}

// lost records that an attempt has not responded although v has, which was asked later.
func (q *query) lost(k kind, late *attempt, v *Upstream) {
	u, waited := late.upstream, late.upstream.now().Sub(late.started)
	u.pace.add(k, waited)
	if waited >= longestUsual {
		u.skip(skipSilent, k, &SkippedError{Upstream: u.label, Other: v.label, Took: waited, Silent: true})
		return
	}
	q.compare(k)
	q.suspect(u, k, waited)
}

// skip makes the pool skip u for a while, for what it did with requests of a kind.
func (u *Upstream) skip(why skip, k kind, err *SkippedError) {
	if u.pace.skip(why, k) {
		u.reportSkip(err)
	}
}

func (u *Upstream) reportSkip(err error) {
	if u.skipChanged != nil {
		u.skipChanged(err)
	}
}

// tryAgain tries the upstreams that have been skipped for long enough for requests like q, in the
// background. No client waits for that.
func (q *query) tryAgain() {
	p := q.turns.pool
	k, timed := q.kind()
	if len(p) == 1 || !timed {
		return
	}
	for _, u := range p {
		if u.health.isDown() {
			continue
		}
		why, due := u.pace.due(k)
		if !due {
			continue
		}
		against, _ := q.rivalOf(u)()
		if !u.inBackground(func() { u.try(why, k, against) }) {
			return
		}
	}
}

// try tries a skipped upstream. It is skipped no more if it does as well as the next one.
func (u *Upstream) try(why skip, k kind, against rival) {
	ctx, cancel := context.WithTimeout(u.life, trialLimit)
	defer cancel()
	limit := longestUsual
	if against.upstream != nil {
		if other, known := against.upstream.pace.typical(k); known {
			limit = limitOf(other)
		}
	}
	_, v := u.keepsWithin(ctx, against.mine, k, limit)
	if why == skipThin && v == asGood && against.upstream != nil {
		_, v = u.compareRates(ctx, against, 0)
	}
	if u.pace.tried(v) {
		u.reportSkip(nil)
	}
}
