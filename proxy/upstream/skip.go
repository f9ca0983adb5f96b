package upstream

import (
	"context"
	"net/http"
	"time"
)

// learn records how long an attempt took.
func (q *query) learn(k kind, a *attempt) {
	if a.err != nil { // its failure is another matter
		return
	}
	a.upstream.pace.add(k, a.took)
	q.compare(k)
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
			u.skip(skipSlow, &SkippedError{Upstream: u.label, Other: v.label, Took: took, Usual: other})
		}
	}
}

// limitOf returns how long an upstream may take if another one takes so long.
func limitOf(other time.Duration) time.Duration {
	return time.Duration(slowFactor*float64(other)) + slowMargin
}

// lost records that an attempt has not responded although v has, which was asked later.
func (q *query) lost(k kind, late *attempt, v *Upstream) {
	u, waited := late.upstream, time.Since(late.started)
	u.pace.add(k, waited)
	if waited >= longestUsual {
		u.skip(skipSilent, &SkippedError{Upstream: u.label, Other: v.label, Took: waited, Silent: true})
		return
	}
	q.compare(k)
}

// skip makes the pool skip u for a while.
func (u *Upstream) skip(why skip, err *SkippedError) {
	if u.pace.skip(why) {
		u.reportSkip(err)
	}
}

func (u *Upstream) reportSkip(err error) {
	if u.skipChanged != nil {
		u.skipChanged(err)
	}
}

// tryAgain asks the upstreams that have been skipped for long enough for what q asks for, in the
// background and without its body. No client waits for that.
func (q *query) tryAgain() {
	p := q.turns.pool
	k, timed := q.kind()
	if len(p) == 1 || !timed {
		return
	}
	for i, u := range p {
		if u.health.isDown() || !u.pace.due() {
			continue
		}
		limit := longestUsual
		if i+1 < len(p) {
			if other, known := p[i+1].pace.median(k); known {
				limit = limitOf(other)
			}
		}
		r := q.requestTo(u)
		if !u.inBackground(func() { u.try(r, k, limit) }) {
			return
		}
	}
}

// try asks a skipped upstream. It is skipped no more if it responds within the limit.
func (u *Upstream) try(r Request, k kind, limit time.Duration) {
	ctx, cancel := context.WithTimeout(u.life, trialLimit)
	defer cancel()
	r.Method, r.Header = http.MethodHead, r.Header.Clone()
	r.Header.Del("Range")
	r.Target, r.HeaderTimeout, r.Patient = nil, trialLimit, false
	a := &attempt{upstream: u, started: time.Now()}
	a.run(ctx, r)
	a.discard()
	if u.pace.tried(k, a.took, a.err == nil && a.took <= limit) {
		u.reportSkip(nil)
	}
}
