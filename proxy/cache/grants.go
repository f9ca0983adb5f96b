package cache

import (
	"path"
	"slices"
	"time"
)

// maxGranted is how many grants of one repository are on record. Each change of a login
// makes a new identity, so the oldest ones are of no use.
const maxGranted = 16

// granted is one grant: an upstream let an identity have content of the repository.
type granted struct {
	Upstream string    `json:"upstream"`
	Who      string    `json:"who"`
	At       time.Time `json:"at"`
}

func grantsPath(r Repository) string { return path.Join(r.folder(), "_grants") }

func (d *Dir) readGrants(r Repository) []granted {
	var all []granted
	if d.readRecord(grantsPath(r), &all) != nil {
		return nil
	}
	return all
}

// Granted returns when the upstream last let who have content of the repository, for the
// time that the upstream is away; the zero time if never, or not known any more.
func (d *Dir) Granted(r Repository, upstream, who string) time.Time {
	for _, g := range d.readGrants(r) {
		if g.Upstream == upstream && g.Who == who {
			return g.At
		}
	}
	return time.Time{}
}

// Grant records that the upstream has let who have content of the repository, as it was asked for at
// that time. The time is exact to ten minutes. untrusted says on whose behalf it is recorded. who is
// "anonymous" or what [Dir.Identity] returns.
func (d *Dir) Grant(r Repository, upstream, who string, at time.Time, untrusted bool) error {
	d.granting.Lock()
	defer d.granting.Unlock()
	now := time.Now()
	all := d.readGrants(r)
	for i, g := range all {
		if g.Upstream != upstream || g.Who != who {
			continue
		}
		if !g.At.After(now) && at.Sub(g.At) < useResolution { // of another clock it may be in the future
			return nil
		}
		all = slices.Delete(all, i, i+1)
		break
	}
	all = slices.Insert(all, 0, granted{upstream, who, at})
	return d.writeRecord(grantsPath(r), all[:min(len(all), maxGranted)], untrusted)
}

// Ungrant records that the upstream refuses it now.
func (d *Dir) Ungrant(r Repository, upstream, who string) {
	d.granting.Lock()
	defer d.granting.Unlock()
	all := d.readGrants(r)
	left := slices.DeleteFunc(slices.Clone(all), func(g granted) bool { return g.Upstream == upstream && g.Who == who })
	switch {
	case len(left) == len(all):
	case len(left) == 0 || d.writeRecord(grantsPath(r), left, true) != nil:
		// A disk that takes no new record must not keep the old one in force.
		_ = d.root.Remove(grantsPath(r))
	}
}
