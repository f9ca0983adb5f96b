package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"
)

const (
	// noticeable is how long a response may take before the next upstream is looked at, as long as it
	// is not known.
	noticeable = 100 * time.Millisecond

	// rivalRounds is how often the next upstream is asked in a comparison, and rounds how often the
	// first one is. It is slower if it is late tooLate times: one late response may be chance.
	rivalRounds, rounds, tooLate = 3, 5, 2

	// An upstream is compared by the bytes that it sends if that are fewer than plenty in a second. It
	// is slower if the other one sends outpaced times as many of the first sampleSize bytes of a blob,
	// in sampleLimit at most. A blob of fewer than leastSample bytes says nothing.
	plenty      = 16 << 20
	outpaced    = 2
	sampleSize  = 1 << 20
	leastSample = 32 << 10
	sampleLimit = 2 * time.Second
)

// verdict is the outcome of a comparison.
type verdict int

const (
	undecided verdict = iota
	asGood
	slower
)

// rival is the upstream that would be asked instead of another one, and what for.
type rival struct {
	upstream *Upstream
	mine     Request // as the one that is compared with it is asked
	theirs   Request
}

// rivalOf returns what to compare u with: the next upstream that can be reached and is not skipped. The
// function that it returns may be called when the query is over. ok is false if there is none.
func (q *query) rivalOf(u *Upstream) func() (against rival, ok bool) {
	others := append(slices.Clone(q.turns.pool), q.Others...)
	r, as := q.Request, q.as
	r.Header, r.Target, r.Patient, r.Separate, r.Others, r.HeaderTimeout = r.Header.Clone(), nil, false, false, nil, trialLimit
	for i, v := range others {
		if v == u {
			others = others[i+1:]
			break
		}
	}
	to := func(v *Upstream) Request {
		r := r
		if as != nil {
			r.Identity = as(v)
		}
		return r
	}
	return func() (rival, bool) {
		for _, v := range others {
			if v != u && !v.health.isDown() && v.pace.skipped() == skipNot {
				return rival{v, to(u), to(v)}, true
			}
		}
		return rival{mine: to(u)}, false
	}
}

// suspect compares u with the next upstream, in the background, if a response of u was late. No client
// waits for that.
func (q *query) suspect(u *Upstream, k kind, took time.Duration) {
	if took <= noticeable || u.pace.skipped() != skipNot {
		return
	}
	against, ok := q.rivalOf(u)()
	if !ok {
		return
	}
	if typical, known := against.upstream.pace.typical(k); known && took <= limitOf(typical) {
		return
	}
	u.compare(subject(k), func(ctx context.Context) verdict {
		why, v := u.compareTimes(ctx, k, against)
		if v == slower {
			u.skip(skipSlow, k, why)
		}
		return v
	})
}

// compare runs a comparison in the background, unless one runs or was a while ago.
func (u *Upstream) compare(s subject, run func(context.Context) verdict) {
	if !u.pace.compare(s) {
		return
	}
	open := u.inBackground(func() {
		v := undecided
		defer func() { u.pace.settle(s, v) }()
		ctx, cancel := context.WithTimeout(u.life, trialLimit)
		defer cancel()
		v = run(ctx)
	})
	if !open {
		u.pace.settle(s, undecided)
	}
}

// compareTimes compares how long u and another upstream take to respond.
func (u *Upstream) compareTimes(ctx context.Context, k kind, against rival) (*SkippedError, verdict) {
	v := against.upstream
	var theirs samples
	for range rivalRounds {
		a := v.timed(ctx, against.theirs, k)
		if !a.good() {
			return nil, undecided // it may not have what was asked for
		}
		theirs.add(a.took)
		v.pace.add(k, a.took)
	}
	usual, _ := theirs.of(0.5, rivalRounds)
	took, verdict := u.keepsWithin(ctx, against.mine, k, limitOf(usual))
	if verdict != slower {
		return nil, verdict
	}
	return &SkippedError{Upstream: u.label, Other: v.label, Took: took, Usual: usual}, slower
}

// keepsWithin asks u a few times, and returns how well it keeps within a limit, and how long it took the
// last time.
func (u *Upstream) keepsWithin(ctx context.Context, r Request, k kind, limit time.Duration) (took time.Duration, v verdict) {
	late := 0
	for range rounds {
		a := u.timed(ctx, r, k)
		switch {
		case u.life.Err() != nil:
			return 0, undecided
		case ctx.Err() != nil:
			return a.took, slower
		case a.err != nil:
			return 0, undecided // its failure is another matter
		case a.took > limit:
			late++
		}
		if late == tooLate {
			return a.took, slower
		}
	}
	return 0, asGood
}

// timed asks u without the body: by HEAD for a manifest, which counts in no rate limit, and for one byte
// of a blob, since some mirrors know of it sooner than they have it. The response is closed.
func (u *Upstream) timed(ctx context.Context, r Request, k kind) *attempt {
	r.Header, r.rival = r.Header.Clone(), nil
	r.Method = http.MethodHead
	r.Header.Del("Range")
	if k == ofBlob {
		r.Method = http.MethodGet
		r.Header.Set("Range", firstByte)
	}
	a := &attempt{upstream: u, started: u.now()}
	a.run(ctx, r)
	a.discard()
	return a
}

// compareRates compares how many bytes of a blob u and another upstream send in a second. seen is what
// u was seen to send in all.
func (u *Upstream) compareRates(ctx context.Context, against rival, seen float64) (*SkippedError, verdict) {
	v := against.upstream
	theirs := v.measure(ctx, against.theirs, sampleLimit)
	if !theirs.good || theirs.bytes < leastSample {
		return nil, undecided
	}
	if seen > 0 && theirs.rate() <= outpaced*seen {
		return nil, asGood
	}
	mine := u.measure(ctx, against.mine, outpaced*theirs.took+slowMargin)
	if ctx.Err() != nil {
		return nil, undecided
	}
	rate := max(mine.rate(), seen)
	if theirs.rate() <= outpaced*rate {
		return nil, asGood
	}
	return &SkippedError{Upstream: u.label, Other: v.label, Rate: rate, OtherRate: theirs.rate()}, slower
}

// measured is what came of the beginning of a blob.
type measured struct {
	bytes int64
	took  time.Duration
	good  bool // it was not refused
}

func (m measured) rate() float64 { return float64(m.bytes) / max(m.took, time.Microsecond).Seconds() }

// measure reads the beginning of a blob for at most limit.
func (u *Upstream) measure(ctx context.Context, r Request, limit time.Duration) (m measured) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r.Header, r.rival = r.Header.Clone(), nil
	r.Method = http.MethodGet
	r.Header.Set("Range", firstBytes)
	a := &attempt{upstream: u, started: u.now()}
	a.run(ctx, r)
	if !a.good() {
		a.discard()
		return measured{took: u.now().Sub(a.started)}
	}
	n, err := io.CopyN(io.Discard, a.resp.Body, sampleSize)
	m = measured{bytes: n, took: u.now().Sub(a.started), good: err == nil || errors.Is(err, io.EOF) || ctx.Err() != nil}
	_ = a.resp.Body.Close()
	return m
}
