package daemon

import (
	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/visitor"
)

// visitorsOf returns who may ask at a site, and how much.
func visitorsOf(c config.Site) visitor.Settings {
	return visitor.Settings{
		Allow:          c.Allow,
		TrustedProxies: c.TrustedProxies,
		Users:          c.Users,
		Limits: visitor.Limits{
			Connections: c.MaxConnections, Requests: c.MaxRequests, Fills: c.MaxFills, Rate: int64(c.Rate),
		},
	}
}
