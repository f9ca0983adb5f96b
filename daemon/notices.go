package daemon

import (
	"time"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// loginRefuser is a service that knows which logins registries refused.
type loginRefuser interface {
	RefusedLogins() []upstream.RefusedLogin
}

// noticesFor returns what people who pull from a registry can do something about: problems of that
// registry, as the registry of problems has them, with their hints.
func (d *daemon) noticesFor(registry string) []string {
	all := d.notices.Load()
	if all == nil {
		return nil
	}
	return (*all)[registry]
}

// setNotices finds out what noticesFor returns.
func (d *daemon) setNotices(now time.Time) {
	c := d.shown.Load()
	if c == nil {
		c = config.Default()
	}
	all := map[string][]string{}
	add := func(registry string, p *problem.Problem) {
		all[registry] = append(all[registry], p.Error()+"; hint: "+p.Hint)
	}
	if s, ok := d.handler.get().service.(loginRefuser); ok {
		for _, r := range s.RefusedLogins() {
			add(registryOf(c, r.Upstream.Host), refusedProblem(r))
		}
	}
	for _, l := range d.activity.Activity(now).RateLimits {
		if l.Remaining <= 0 && l.Identity != "client" {
			add(l.Registry, usedUp(l))
		}
	}
	if len(all) == 0 {
		d.notices.Store(nil)
		return
	}
	d.notices.Store(&all)
}
