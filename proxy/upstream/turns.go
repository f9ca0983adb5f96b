package upstream

import "context"

// turns yields the upstreams of a pool in the order in which a request asks them:
//
//  1. those that can be reached and are not skipped, as the configuration has them;
//  2. those that are skipped, for what none of the others has. An optional one that does not respond
//     is left out if another one was asked;
//  3. those that could not be reached a moment ago. An engine that can fall back to the registry gets
//     to them only if no other was asked. A patient client, which cannot, gets to all of them.
//
// An upstream that is alone is asked unless it could not be reached a moment ago.
type turns struct {
	ctx     context.Context
	pool    Pool
	patient bool

	at            int // the next one of pool
	skipped, away Pool
	asked         bool
}

func newTurns(ctx context.Context, p Pool, patient bool) *turns {
	return &turns{ctx: ctx, pool: p, patient: patient}
}

// more reports whether another upstream may be asked after the last one that next returned.
func (t *turns) more() bool {
	return t.at < len(t.pool) || len(t.skipped) > 0 || t.patient && len(t.away) > 0
}

// next returns the next upstream, and a function to call when it has been asked.
func (t *turns) next() (u *Upstream, end func(), ok bool) {
	u, end, ok = t.find()
	t.asked = t.asked || ok
	return u, end, ok
}

func (t *turns) find() (*Upstream, func(), bool) {
	if len(t.pool) == 1 && t.at == 0 {
		t.at++
		end, ok := t.pool[0].health.admit(t.ctx, t.patient)
		return t.pool[0], end, ok
	}
	for t.at < len(t.pool) {
		u := t.pool[t.at]
		t.at++
		switch {
		case u.health.isDown():
			u.revive()
			t.away = append(t.away, u)
		case u.pace.skipped() != skipNot:
			t.skipped = append(t.skipped, u)
		default:
			return u, func() {}, true
		}
	}
	for len(t.skipped) > 0 {
		u := t.skipped[0]
		t.skipped = t.skipped[1:]
		if !t.asked || !u.optional || u.pace.skipped() != skipSilent {
			return u, func() {}, true
		}
	}
	for len(t.away) > 0 && (t.patient || !t.asked) {
		u := t.away[0]
		t.away = t.away[1:]
		if end, ok := u.health.admit(t.ctx, t.patient); ok {
			return u, end, true
		}
	}
	return nil, nil, false
}

// peek returns the upstream that comes next if none is skipped or out of reach; nil if there is none.
func (t *turns) peek() *Upstream {
	if t.at < len(t.pool) && !t.pool[t.at].health.isDown() && t.pool[t.at].pace.skipped() == skipNot {
		return t.pool[t.at]
	}
	return nil
}

// left returns the upstreams that were not asked, except optional ones.
func (t *turns) left() (left Pool) {
	for _, u := range t.away {
		if !u.optional {
			left = append(left, u)
		}
	}
	return left
}
