package daemon

import (
	"slices"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/daemon/activity"
	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/daemon/health"
	"github.com/sidemirror/sidemirror/daemon/web"
)

// sliceLength is how long a slice of the page's charts is, in minutes.
const sliceLength = 2

// live returns what the page shows of what happens. It only looks into memory.
func (d *daemon) live() web.Live {
	now := time.Now()
	a := d.activity.Activity(now)
	l := web.Live{At: now, Traffic: trafficOf(a.Minutes)}
	if engines := d.engines.Load(); engines != nil {
		l.Watched, l.Engines = true, enginesShown(*engines)
	}
	for _, e := range a.Engines {
		if e.Last.After(l.LastPull) {
			l.LastPull = e.Last
		}
	}
	for _, p := range a.Pulls {
		l.Pulls = append(l.Pulls, web.Pull{
			Image: p.Image, Engine: p.Engine, Start: p.Started, Took: time.Duration(p.Seconds * float64(time.Second)),
			Checked: p.Outcome == activity.Checked, Failed: p.Outcome == activity.Failed,
			Stored: p.Bytes.Cache, Fetched: p.Bytes.Upstream + p.Bytes.Prefetch,
		})
	}
	l.Downloads = downloadsShown(a.Downloads)
	c := d.shown.Load()
	for _, u := range a.Upstreams {
		shown := web.Upstream{Registry: registryOf(c, u.Name), Host: u.Name, Away: !u.Reachable, Why: u.Reason}
		if u.Changed != nil {
			shown.Since = *u.Changed
		}
		l.Upstreams = append(l.Upstreams, shown)
	}
	slices.SortStableFunc(l.Upstreams, func(a, b web.Upstream) int { return strings.Compare(a.Registry, b.Registry) })
	for _, r := range a.RateLimits {
		if r.Identity == "client" { // of a client's own login
			continue
		}
		b := web.Budget{
			Registry: r.Registry, Login: r.Identity == "login", Remaining: int(r.Remaining),
			Window: time.Duration(r.Window * float64(time.Second)),
		}
		if r.Limit != nil {
			b.Limit = int(*r.Limit)
		}
		if r.Reset != nil {
			b.Reset = *r.Reset
		}
		l.Budgets = append(l.Budgets, b)
	}
	for _, p := range d.health.Problems(now) {
		l.Problems = append(l.Problems, web.Problem{
			Code: string(p.Code), Title: p.Title, Text: p.Error(), Hint: p.Hint,
			Severe: p.Severity == health.Error, Note: p.Severity == health.Note,
		})
	}
	l.Stored, l.Room = d.caches.size()
	return l
}

func enginesShown(engines []handover.Engine) (list []web.Engine) {
	through := map[string]web.Through{"active": web.Yes, "partial": web.Partly, "inactive": web.No}
	for _, e := range engines {
		list = append(list, web.Engine{Name: e.Name, Home: e.Home, Through: through[e.Mirror], HubOnly: e.HubOnly})
	}
	return list
}

// downloadsShown sums what is being sent of each image to each engine from one server.
func downloadsShown(all []activity.Download) (list []web.Download) {
	for _, d := range all {
		i := slices.IndexFunc(list, func(l web.Download) bool {
			return l.Image == d.Image && l.Engine == d.Engine && l.From == d.From
		})
		if i < 0 {
			list = append(list, web.Download{Image: d.Image, Engine: d.Engine, From: d.From})
			i = len(list) - 1
		}
		list[i].Sent += d.Sent
		switch {
		case d.Size == nil:
			list[i].Size = unknownSize
		case list[i].Size != unknownSize:
			list[i].Size += *d.Size
		}
	}
	for i := range list {
		list[i].Size = max(list[i].Size, 0)
	}
	return list
}

// unknownSize is the size of downloads of which one has no known size.
const unknownSize = -1

// trafficOf sums the traffic of minutes over slices of sliceLength, the last of which ends now.
func trafficOf(minutes []activity.Traffic) []web.Traffic {
	slices.Reverse(minutes)
	var list []web.Traffic
	for some := range slices.Chunk(minutes, sliceLength) {
		var sum web.Traffic
		for _, t := range some {
			sum.Stored += t.Bytes.Cache
			sum.Fetched += t.Bytes.Upstream + t.Bytes.Prefetch
			sum.Hits += t.Hits
			sum.Requests += t.Requests
		}
		list = append(list, sum)
	}
	slices.Reverse(list)
	return list
}

// registryOf returns the registry that an upstream of c has the content of. An upstream that c does
// not name is a registry itself.
func registryOf(c *config.Config, upstream string) string {
	for _, r := range c.Registries {
		for _, u := range r.Upstreams {
			if u.Label() == upstream {
				return r.Name
			}
		}
	}
	return upstream
}

// size returns how much the cache in force stores, and the most that it may; zeros if there is none.
func (s *caches) size() (stored, most int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inForce == nil {
		return 0, 0
	}
	return s.inForce.Used(), s.most
}
