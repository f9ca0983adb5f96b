package proxy

import (
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// LoginInUse says which source a host's login comes from.
type LoginInUse struct {
	Host   string
	Source string // "store", "systemd", "file", "environment", "helper" or "plugin"
}

// Logins returns the logins that upstreams have accepted since the configuration came into force, and
// those that they refused when they were last sent.
func (p *Proxy) Logins() (inUse []LoginInUse, refused []upstream.RefusedLogin) {
	for _, u := range p.routes.upstreams() {
		if source := u.LoginSource(); source != "" {
			inUse = append(inUse, LoginInUse{u.Host(), source})
		}
		refused = append(refused, u.RefusedLogins()...)
	}
	slices.SortFunc(inUse, func(a, b LoginInUse) int { return strings.Compare(a.Host, b.Host) })
	slices.SortFunc(refused, func(a, b upstream.RefusedLogin) int {
		return strings.Compare(a.Upstream.Host+a.Generation, b.Upstream.Host+b.Generation)
	})
	return slices.Compact(inUse), refused
}

// upstreams returns those of all registries.
func (r *routes) upstreams() (list []*upstream.Upstream) {
	for _, reg := range r.registries {
		list = append(list, reg.pool...)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, reg := range r.unnamed {
		list = append(list, reg.pool...)
	}
	return list
}
