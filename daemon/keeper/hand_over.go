package keeper

import (
	"maps"

	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/internal/secret"
)

// HandOver tells the proxy, by a file in folder, how the engines reach registries. An empty folder
// means that nothing is handed over.
func HandOver(folder string, plan hostconfig.Plan) error {
	if folder == "" {
		return nil
	}
	h, contents := handover.Handover{Registries: make(map[string]handover.Registry), Proxy: EngineProxy(plan)}, make(map[string]secret.Secret)
	for _, a := range plan.Adopted {
		r := handover.Registry{CA: a.CA, SkipVerify: a.SkipVerify, PlainHTTP: a.PlainHTTP, From: a.From}
		for _, pair := range a.Clients {
			r.Client = append(r.Client, handover.KeyPair(pair))
		}
		h.Registries[a.Registry] = r
		maps.Copy(contents, a.Contents)
	}
	return handover.Write(folder, h, contents)
}

// EngineProxy returns the forward proxy of the engines, as it is handed over; nil if they have none.
func EngineProxy(plan hostconfig.Plan) *handover.Proxy {
	p := plan.Egress.Proxy
	if p == nil {
		return nil
	}
	return &handover.Proxy{HTTP: p.HTTP, HTTPS: p.HTTPS, NoProxy: p.NoProxy, From: p.From}
}
