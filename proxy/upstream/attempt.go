package upstream

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// attempt is one upstream's part in a request to a pool.
type attempt struct {
	upstream *Upstream
	resp     *http.Response // nil if err is not
	err      error
	started  time.Time
	took     time.Duration

	done   chan struct{} // closed at the end; nil if it is over already
	cancel context.CancelFunc
}

// run asks the upstream. What it responds is an error if it is passed over for another upstream.
func (a *attempt) run(ctx context.Context, r Request) {
	if r.rival == nil {
		a.ask(ctx, r)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	if a.ask(ctx, r); a.err != nil {
		cancel()
		return
	}
	a.resp.Body = a.upstream.metered(a.resp.Body, cancel, r.rival)
}

func (a *attempt) ask(ctx context.Context, r Request) {
	a.resp, a.err = a.upstream.Do(ctx, r) //nolint:bodyclose // the caller of Pool.Do or discard closes it
	a.took = a.upstream.now().Sub(a.started)
	if a.err == nil {
		if passed := a.upstream.passedOver(a.resp); passed != nil {
			a.resp, a.err = nil, passed
		}
	}
}

// begin runs an attempt in the background. end is called when it is over.
func begin(ctx context.Context, r Request, u *Upstream, end func()) *attempt {
	a := &attempt{upstream: u, started: u.now(), done: make(chan struct{})}
	ctx, a.cancel = context.WithCancel(ctx)
	go func() {
		defer close(a.done)
		defer end()
		defer func() {
			if p := recover(); p != nil { // as net/http does for handlers
				a.resp, a.err = nil, &oci.Error{Code: oci.Unavailable, Message: "sidemirror failed to ask the upstream", Err: fmt.Errorf("panic: %v\n%s", p, debug.Stack())}
			}
		}()
		a.run(ctx, r)
		if a.resp == nil {
			a.cancel()
			return
		}
		a.resp.Body = &closingBody{ReadCloser: a.resp.Body, then: a.cancel}
	}()
	return a
}

// good reports whether the attempt has what was asked for.
func (a *attempt) good() bool {
	return a.err == nil && (a.resp.StatusCode/100 == 2 || a.resp.StatusCode == http.StatusRequestedRangeNotSatisfiable)
}

// final reports whether no other upstream could do better.
func (a *attempt) final() bool { return a.err == nil && a.resp.StatusCode != http.StatusNotFound }

// discard closes the response of an attempt that is over.
func (a *attempt) discard() {
	if a.resp != nil {
		drain(a.resp)
	}
}

// forsake ends an attempt whose outcome is not needed.
func (a *attempt) forsake() {
	a.cancel()
	go func() {
		<-a.done
		if a.resp != nil {
			_ = a.resp.Body.Close()
		}
	}()
}

// ask asks u, and the next upstream too if u is late. It returns the attempts that are over, in the
// order of the pool; of two, the first is not final.
func (q *query) ask(ctx context.Context, u *Upstream, end func()) []*attempt {
	k, timed := q.kind()
	timed = timed && len(q.turns.pool) > 1
	r := q.requestTo(u)
	if !timed || !r.others {
		a := &attempt{upstream: u, started: u.now()}
		a.run(ctx, r)
		end()
		if timed {
			q.learn(k, a)
		}
		return []*attempt{a}
	}
	first := begin(ctx, r, u, end)
	if !q.waitFor(first, k) {
		if v, vend, ok := q.turns.next(); ok {
			return q.hedge(ctx, k, first, v, vend)
		}
		<-first.done
	}
	q.learn(k, first)
	return []*attempt{first}
}

// waitFor waits for an attempt for as long as its upstream usually takes, and no longer than is slow
// compared with the next one. It reports whether it is over. An upstream that has used up its hedges has
// longer.
func (q *query) waitFor(a *attempt, k kind) bool {
	usual := a.upstream.pace.usual(k)
	if v := q.turns.peek(); v != nil {
		if typical, known := v.pace.typical(k); known {
			usual = min(usual, max(limitOf(typical), shortestUsual))
		}
	}
	if a.isOverWithin(usual) {
		return true
	}
	return usual < longestUsual && !a.upstream.pace.spend() && a.isOverWithin(longestUsual-usual)
}

func (a *attempt) isOverWithin(d time.Duration) bool {
	late := time.NewTimer(d)
	defer late.Stop()
	select {
	case <-a.done:
		return true
	case <-late.C:
		return false
	}
}

// hedge asks v too while first is late. The first good response counts.
func (q *query) hedge(ctx context.Context, k kind, first *attempt, v *Upstream, end func()) []*attempt {
	first.upstream.observer.Hedged(first.upstream.label)
	second := begin(ctx, q.requestTo(v), v, end)
	select {
	case <-first.done:
		q.learn(k, first)
		if first.final() {
			second.forsake()
			return []*attempt{first}
		}
		<-second.done
		q.learn(k, second)
	case <-second.done:
		q.learn(k, second)
		if second.good() {
			first.forsake()
			q.lost(k, first, v)
			return []*attempt{second}
		}
		<-first.done
		q.learn(k, first)
		if first.final() {
			second.discard()
			return []*attempt{first}
		}
	}
	return []*attempt{first, second}
}

// kind returns what is asked for, and whether the time that it takes says something about the
// upstream: it does for manifests and for blobs that a client waits for.
func (q *query) kind() (k kind, timed bool) {
	switch {
	case q.Separate, q.Ahead:
		return 0, false
	case strings.Contains(q.Path, "/manifests/"):
		return ofManifest, true
	case strings.Contains(q.Path, "/blobs/"):
		return ofBlob, true
	}
	return 0, false
}
