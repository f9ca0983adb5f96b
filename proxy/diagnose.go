package proxy

import (
	"context"

	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// Diagnosis is what was seen of one upstream of a registry.
type Diagnosis struct {
	Upstream string // its URL
	Steps    []upstream.Step
}

// Diagnose examines each upstream of a registry, with the daemon's own login. The name is as in a
// reference.
func (p *Proxy) Diagnose(ctx context.Context, name string) ([]Diagnosis, error) {
	reg := p.routes.registries[name]
	if reg == nil {
		reg = p.routes.lookup(name)
	}
	if reg == nil {
		return nil, &oci.Error{Code: oci.RegistryUnknown, Message: "registry " + name + " is not configured"}
	}
	var found []Diagnosis
	for i, u := range reg.pool {
		var cred credential.Credential
		var unread error
		if p.policy.Credentials != nil {
			cred, unread = credential.LookupFor(ctx, p.policy.Credentials, reg.upstreams[i].URL, "")
		}
		found = append(found, Diagnosis{Upstream: u.Name(), Steps: u.Diagnose(ctx, cred, unread)})
	}
	return found, nil
}
