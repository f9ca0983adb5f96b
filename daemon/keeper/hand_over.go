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
	h, contents := handover.Handover{Registries: make(map[string]handover.Registry)}, make(map[string]secret.Secret)
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
