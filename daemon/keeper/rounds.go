package keeper

import (
	"bytes"
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

	want      engine.Desired
	conflicts map[string]*conflict // of the files that were written, by path
	failures  int
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

// run makes the host as want says, except for files that other programs have only just changed or
// keep changing back. The error names what could not be done; the plan's own refusals are in the
// plan alone.
func (r *rounds) run(ctx context.Context, want engine.Desired) (round, error) {
	if !reflect.DeepEqual(want, r.want) || r.conflicts == nil {
		r.want, r.conflicts = want, make(map[string]*conflict)
	}
	plan, err := hostconfig.Make(ctx, r.host, want)
	if err != nil {
		return round{again: r.retry()}, err
	}
	out := round{Plan: plan}
	held := r.hold(&out)
	todo := plan.Only(func(c hostconfig.Change) bool { return !held[c.Path] })
	if len(todo.Changes)+len(todo.Signals()) == 0 {
		r.failures = 0
		return out, nil
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
	switch {
	case err == nil:
		r.failures = 0
	case errors.Is(err, hostfs.ErrBusy):
		out.again, err = retryFirst, nil
	default:
		out.again = r.retry()
	}
	return out, err
}

func (r *rounds) retry() time.Duration {
	r.failures++
	return min(retryFirst<<min(r.failures-1, 16), retryLast)
}

// hold returns the files whose change has to wait or is given up. What waits is in out.again, what is
// given up in out.lost.
func (r *rounds) hold(out *round) map[string]bool {
	held := make(map[string]bool)
	for _, c := range out.Changes {
		wait, lost := r.wait(c)
		if lost {
			out.lost = append(out.lost, c.Path)
		} else if wait > 0 && (out.again == 0 || wait < out.again) {
			out.again = wait
		}
		held[c.Path] = lost || wait > 0
	}
	return held
}

// conflict is what became of one file.
type conflict struct {
	rounds  int       // times that it was changed back
	at      time.Time // when it was last written
	state   string    // what other programs made of it
	noticed time.Time // when that was seen first
}

const (
	// quiet is how long a file that another program changed has to be left alone before it is changed
	// back: twice as long each time, so that two programs that undo each other soon stop.
	quiet = 250 * time.Millisecond

	// maxRounds are the times that a file is changed back. After the last quiet time (two minutes) it
	// is left to the other program. Restarts of containerd are felt: they are fewer.
	maxRounds, maxRestarts = 10, 3

	// calm is how long a file has to stay unchanged for its rounds to be forgotten. It is longer than
	// the half-hour in which Ansible or Puppet come round.
	calm = 6 * time.Hour

	// emptied is how long a file may be empty on its way to being written: many programs truncate it
	// first, and would lose what they write if it were replaced.
	emptied = 1500 * time.Millisecond
)

// wait returns how long a change has to wait for its file to be left alone.
func (r *rounds) wait(c hostconfig.Change) (wait time.Duration, lost bool) {
	now := r.now()
	var need time.Duration
	if c.Before != nil && len(bytes.TrimSpace(c.Before)) == 0 {
		need = emptied
	}
	f := r.conflicts[c.Path]
	since := c.Changed
	if f != nil {
		if now.Sub(f.at) > calm {
			f.rounds = 0
		}
		limit := maxRounds
		if c.Kind == engine.ConfigTOML {
			limit = maxRestarts
		}
		if f.rounds >= limit {
			return 0, true
		}
		need = max(need, quiet<<f.rounds)
		if state := hostfs.Hash(c.Before); state != f.state || f.noticed.Before(f.at) {
			f.state, f.noticed = state, now
		}
		// A file that is gone has no time, and a clock may have been set back.
		if since.IsZero() || since.After(now) {
			since = f.noticed
		}
	}
	if since.IsZero() || since.After(now) {
		return 0, false
	}
	return need - now.Sub(since), false
}
