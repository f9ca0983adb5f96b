package keeper

import (
	"time"

	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
)

// repairs counts how often sidemirror's entry was put back into files that other programs had changed.
type repairs struct {
	settled map[string]settled // the files that have had the entry as it is wanted, by path
	counts  map[string]int64   // by engine
}

// settled is what a file was when it had the entry.
type settled struct {
	at    time.Time
	state string // its contents, if sidemirror wrote them
}

// forget makes the next writing of each file no repair: other things are wanted now.
func (r *repairs) forget() { r.settled = map[string]settled{} }

// kernelTick is how far the kernel's times of files are behind the clock, at most.
const kernelTick = 10 * time.Millisecond

// see records which files had the entry at a time.
func (r *repairs) see(engines []engine.State, now time.Time) {
	for _, s := range engines {
		for _, f := range s.Files {
			if f.State == engine.InPlace && r.settled[f.Path].state == "" {
				r.settled[f.Path] = settled{at: now}
			}
		}
	}
}

// wrote records that a change was made. It is a repair if another program has changed the file since
// it had the entry. Otherwise sidemirror wants something else, such as settings that it repeats.
func (r *repairs) wrote(c hostconfig.Change, now time.Time) {
	if before, known := r.settled[c.Path]; known {
		changed := c.Before == nil || c.Changed.After(before.at.Add(-kernelTick))
		if before.state != "" {
			changed = hostfs.Hash(c.Before) != before.state
		}
		if changed {
			if r.counts == nil {
				r.counts = map[string]int64{}
			}
			r.counts[c.Engine]++
		}
	}
	r.settled[c.Path] = settled{now, hostfs.Hash(c.After)}
}
