package keeper

import (
	"bytes"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
)

// hold returns the files whose change must wait or is given up. What waits is in out.again, what is
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
	// quiet is how long a file that another program changed must be left alone before it is changed
	// back: twice as long each time, so that two programs that undo each other soon stop.
	quiet = 250 * time.Millisecond

	// maxRounds are the times that a file is changed back. After the last quiet time (two minutes) it
	// is left to the other program. Restarts of containerd are felt: they are fewer.
	maxRounds, maxRestarts = 10, 3

	// calm is how long a file must stay unchanged for its rounds to be forgotten. It is longer than
	// the half-hour in which Ansible or Puppet come round.
	calm = 6 * time.Hour

	// emptied is how long a file may be empty on its way to being written: many programs truncate it
	// first, and would lose what they write if it were replaced.
	emptied = 1500 * time.Millisecond
)

// wait returns how long a change must wait for its file to be left alone.
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
		if c.Kind == engine.ConfigTOML || c.Kind == engine.BuildkitdTOML {
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
