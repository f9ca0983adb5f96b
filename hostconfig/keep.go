package hostconfig

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"slices"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
)

const (
	// quiet is how long a file that somebody changed has to be left alone before it
	// is changed back: twice as long each time, so that two programs that undo each
	// other soon come to rest.
	quiet = 250 * time.Millisecond

	// maxRounds are the times that a file is changed back. From the last quiet time
	// (two minutes) on, the other writer has it. With a restart of containerd there
	// are fewer: that one is felt.
	maxRounds, maxRestarts = 10, 3

	// calm is how long a file has to stay ours for its rounds to be forgotten. It is
	// longer than the half-hour in which Ansible or Puppet come round.
	calm = 6 * time.Hour

	// emptied is how long a file may be empty on its way to being written: many
	// programs truncate it first. To replace it under them would lose what they write.
	emptied = 1500 * time.Millisecond

	retryFirst, retryLast = time.Second, 5 * time.Minute
)

// Keeper keeps a host as it is wanted, round by round. It is for one goroutine.
type Keeper struct {
	Host *Host

	now      func() time.Time // nil: time.Now
	want     Desired
	fights   map[string]*fight // of the files that we have written, by path
	failures int
}

// fight is what became of one file.
type fight struct {
	rounds  int       // times that it was changed back
	at      time.Time // when we last wrote it
	state   string    // what others made of it
	noticed time.Time // when that was seen first
}

// Kept is what a round came to.
type Kept struct {
	Plan
	Result

	// Lost are the files that somebody else changed back so often that they are left
	// to them, until other things are wanted.
	Lost []string

	// Again is when there is something to do even if nothing changes until then; zero
	// where there is not.
	Again time.Duration
}

// Round makes the host as want says, but for files that others have only just
// changed or keep changing back. The error names what could not be done; the plan's
// own refusals are in the plan alone.
func (k *Keeper) Round(ctx context.Context, want Desired) (Kept, error) {
	if !reflect.DeepEqual(want, k.want) || k.fights == nil {
		k.want, k.fights = want, make(map[string]*fight)
	}
	plan, err := Make(ctx, k.Host, want)
	if err != nil {
		return Kept{Again: k.retry()}, err
	}
	out := Kept{Plan: plan}
	todo := plan
	todo.Refused = nil
	todo.Changes = k.due(&out)
	todo.restart = plan.restart && (plan.pending || slices.ContainsFunc(todo.Changes, func(c Change) bool { return c.kind == configFile }))
	if len(todo.Changes)+len(todo.Signals()) == 0 {
		k.failures = 0
		return out, nil
	}
	out.Result, err = carryOut(ctx, k.Host, todo, false)
	for _, name := range slices.Concat(out.Written, out.Given) {
		f := k.fights[name]
		if f == nil {
			f = &fight{rounds: -1}
			k.fights[name] = f
		}
		f.rounds++
		f.at = k.time()
	}
	switch {
	case err == nil:
		k.failures = 0
	case errors.Is(err, hostfs.ErrBusy):
		out.Again, err = retryFirst, nil
	default:
		out.Again = k.retry()
	}
	return out, err
}

func (k *Keeper) time() time.Time {
	if k.now != nil {
		return k.now()
	}
	return time.Now()
}

func (k *Keeper) retry() time.Duration {
	k.failures++
	return min(retryFirst<<min(k.failures-1, 16), retryLast)
}

// due are the changes of out's plan that are to be made now. What waits is in
// out.Again, what is given up in out.Lost.
func (k *Keeper) due(out *Kept) []Change {
	held := make(map[string]bool)
	for _, c := range out.Changes {
		wait, lost := k.wait(c)
		if lost {
			out.Lost = append(out.Lost, c.Path)
		} else if wait > 0 && (out.Again == 0 || wait < out.Again) {
			out.Again = wait
		}
		if lost || wait > 0 {
			held[c.Path] = true
		}
	}
	// One that stands before another which needs it holds that too; see [Change].needs.
	for range out.Changes {
		before := len(held)
		for _, c := range out.Changes {
			if held[c.needs] {
				held[c.Path] = true
			}
		}
		if len(held) == before {
			break
		}
	}
	return slices.DeleteFunc(slices.Clone(out.Changes), func(c Change) bool { return held[c.Path] })
}

// wait is how long c has to wait for its file to be left alone.
func (k *Keeper) wait(c Change) (wait time.Duration, lost bool) {
	now := k.time()
	var need time.Duration
	if c.Before != nil && len(bytes.TrimSpace(c.Before)) == 0 {
		need = emptied
	}
	f := k.fights[c.Path]
	since := c.changed
	if f != nil {
		if now.Sub(f.at) > calm {
			f.rounds = 0
		}
		limit := maxRounds
		if c.kind == configFile {
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
