package keeper

import (
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/hostconfig"
)

// EngineProxy returns the forward proxy of the engines, as it is handed over; nil if they have none.
func EngineProxy(plan hostconfig.Plan) *handover.Proxy {
	p := plan.Egress.Proxy
	if p == nil {
		return nil
	}
	return &handover.Proxy{HTTP: p.HTTP, HTTPS: p.HTTPS, NoProxy: p.NoProxy, From: p.From}
}
