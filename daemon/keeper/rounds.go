package keeper

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
)

// rounds makes a host as it is wanted, round by round, and gives way to a program that keeps changing
// a file back. It is for one goroutine.
type rounds struct {
	host *hostconfig.Host
	now  func() time.Time

	// handOver, if not nil, is called with each plan before it is carried out: the proxy must know how a
	// registry is reached before engines ask it.
	handOver func(hostconfig.Plan) error

	want      engine.Desired
	conflicts map[string]*conflict // of the files that were written, by path
	repairs   repairs
	failures  int
	outdated  int // rounds in a row in which systemd had not read a unit again
}

func newRounds(h *hostconfig.Host) *rounds {
	h.Hurry = true // the next round comes anyway
	return &rounds{host: h, now: time.Now}
}

// round is what one round came to.
type round struct {
	hostconfig.Plan
	hostconfig.Result

	// lost are the files that another program changed back so often that they are left to it,
	// until other things are wanted.
	lost []string

	// again is when there is something to do even if nothing changes until then; 0 if there is not.
	again time.Duration
}

const retryFirst, retryLast = time.Second, 5 * time.Minute

// outdatedLast is how often a unit is looked at that systemd has not read again for long.
const outdatedLast = 30 * time.Second

// run runs one round.
func (r *rounds) run(ctx context.Context, want engine.Desired) (round, error) {
	out, err := r.once(ctx, want)
	if wait := r.untilRead(out.Egress.Outdated); wait > 0 && (out.again == 0 || wait < out.again) {
		out.again = wait
	}
	return out, err
}

// untilRead returns when to look again at units that systemd has not read again, 0 if there is none.
// The reload of systemd, after which a unit may name another forward proxy, changes no file.
func (r *rounds) untilRead(outdated bool) time.Duration {
	if !outdated {
		r.outdated = 0
		return 0
	}
	r.outdated++
	return min(retryFirst<<min(r.outdated-1, 16), outdatedLast)
}

// once makes the host as want says, except for files that other programs have only just changed or
// keep changing back. The error names what could not be done; the plan's own refusals are in the
// plan alone.
func (r *rounds) once(ctx context.Context, want engine.Desired) (round, error) {
	if !reflect.DeepEqual(want, r.want) || r.conflicts == nil {
		r.want, r.conflicts = want, make(map[string]*conflict)
		r.repairs.forget()
	}
	began := r.now()
	plan, err := hostconfig.Make(ctx, r.host, want)
	if err != nil {
		return round{again: r.retry()}, err
	}
	out := round{Plan: plan}
	var unknown error
	if r.handOver != nil {
		unknown = r.handOver(plan)
	}
	r.repairs.see(plan.Engines, began)
	held := r.hold(&out)
	todo := plan.Only(func(c hostconfig.Change) bool { return !held[c.Path] })
	if len(todo.Changes)+len(todo.Signals()) == 0 {
		r.failures = 0
		return out, unknown
	}
	out.Result, err = hostconfig.Apply(ctx, r.host, todo)
	for _, name := range slices.Concat(out.Written, out.Restored) {
		f := r.conflicts[name]
		if f == nil {
			f = &conflict{rounds: -1}
			r.conflicts[name] = f
		}
		f.rounds++
		f.at = r.now()
	}
	for _, c := range todo.Changes {
		if slices.Contains(out.Written, c.Path) {
			r.repairs.wrote(c, r.now())
		}
	}
	switch {
	case err == nil:
		r.failures = 0
	case errors.Is(err, hostfs.ErrBusy):
		out.again, err = retryFirst, nil
	default:
		out.again = r.retry()
	}
	return out, errors.Join(err, unknown)
}

func (r *rounds) retry() time.Duration {
	r.failures++
	return min(retryFirst<<min(r.failures-1, 16), retryLast)
}
