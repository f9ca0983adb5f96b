package keeper

import (
	"maps"

	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
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

// enginesOf returns the engines that should pull through sidemirror, as they are handed over. repairs
// are of all engines of a name.
func enginesOf(states []engine.State, repairs map[string]int64) []handover.Engine {
	list := []handover.Engine{}
	repairs = maps.Clone(repairs)
	for _, s := range states {
		if !s.Present || s.Mirror == "" {
			continue
		}
		e := handover.Engine{Name: s.Engine, Home: s.Home, Mirror: string(s.Mirror), HubOnly: s.HubOnly, Repairs: repairs[s.Engine]}
		delete(repairs, s.Engine)
		if s.Mirror == engine.Partial && s.HubOnly && len(s.Problems) == 0 {
			e.Mirror = string(engine.Active) // it does what it can
		}
		list = append(list, e)
	}
	return list
}

// handOverEngines lets the page show which engines there are, and whether they pull through
// sidemirror.
func (k *keeper) handOverEngines(states []engine.State) error {
	if k.handover == "" || k.engines.handOver == nil {
		return nil
	}
	return handover.WriteEngines(k.handover, enginesOf(states, k.engines.repairs.counts))
}

// forgetEngines makes them unknown, since a process that has ended learns of no change.
func (k *keeper) forgetEngines() {
	if k.handover == "" || k.engines.handOver == nil {
		return
	}
	if err := handover.RemoveEngines(k.handover); err != nil {
		k.log.WithError(err).Warn("the page shows engines that may have changed")
	}
}

// EngineProxy returns the forward proxy of the engines, as it is handed over; nil if they have none.
func EngineProxy(plan hostconfig.Plan) *handover.Proxy {
	p := plan.Egress.Proxy
	if p == nil {
		return nil
	}
	return &handover.Proxy{HTTP: p.HTTP, HTTPS: p.HTTPS, NoProxy: p.NoProxy, From: p.From}
}
