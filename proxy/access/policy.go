package access

import (
	"context"
	"net/http"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/peer"
)

// Policy says which callers are trusted and which credentials they are served with.
type Policy struct {
	// TrustedUIDs are the users whose processes, asking over loopback, are trusted engines.
	TrustedUIDs []uint32

	// Credentials are the daemon's own; nil for none. They serve trusted callers only.
	Credentials credential.Source

	// Name makes a name for the holder of secrets that stays the same across restarts and
	// does not reveal them. It may be nil if nothing is recorded.
	Name func(secrets ...string) string
}

// Target is what a caller asks for: a repository of a registry, through its upstreams.
type Target struct {
	Registry, Repository string
	Upstreams            []string // the name of each, see upstream.Upstream.Name

	// Relay means that callers answer the upstream's challenges with their own credentials.
	Relay bool
}

// Trusts reports whether the request of ctx comes from a trusted engine.
func (p Policy) Trusts(ctx context.Context) bool { return peer.Trusted(ctx, p.TrustedUIDs) }

// Identify returns who asks for t, given that the caller is trusted or not. An error means
// that a credential exists and cannot be read: the caller is not served as anonymous then.
func (p Policy) Identify(r *http.Request, t Target, trusted bool) (Caller, error) {
	c := Caller{Trusted: trusted, identities: make([]named, 0, len(t.Upstreams))}
	for _, u := range t.Upstreams {
		id, err := p.identity(r, t, u, trusted)
		if err != nil {
			return Caller{}, err
		}
		c.identities = append(c.identities, named{u, id})
	}
	return c, nil
}

func (p Policy) identity(r *http.Request, t Target, _ string, trusted bool) (Identity, error) {
	switch {
	case t.Relay:
		return clientIdentity(r.Header.Get("Authorization")), nil
	case !trusted || p.Credentials == nil:
		return Identity{name: anonymous}, nil
	}
	cred, err := p.Credentials.Lookup(r.Context(), t.Registry, t.Repository)
	if err != nil {
		return Identity{}, err
	}
	return daemonIdentity(cred, p.Name), nil
}

// Caller is who sent a request, and in which identity each upstream is asked for it.
type Caller struct {
	Trusted    bool
	identities []named
}

type named struct {
	upstream string
	identity Identity
}

// At returns the identity in which the upstream of that name is asked: anonymous for one
// that is not known.
func (c Caller) At(upstream string) Identity {
	for _, n := range c.identities {
		if n.upstream == upstream {
			return n.identity
		}
	}
	return Identity{name: anonymous}
}

// Name returns a name that two callers share only if every upstream is asked for both in the
// same identity.
func (c Caller) Name() string {
	names := make([]string, len(c.identities))
	for i, n := range c.identities {
		names[i] = n.identity.name
	}
	return strings.Join(names, " ")
}

// knows reports whether the upstream is one that the caller's request may be sent to.
func (c Caller) knows(upstream string) bool {
	for _, n := range c.identities {
		if n.upstream == upstream {
			return true
		}
	}
	return false
}
