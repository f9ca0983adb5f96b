package access

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/peer"
)

// Policy says which callers are trusted and which credentials they are served with.
type Policy struct {
	// Trust says which processes, asking over loopback, are trusted engines; nil for none.
	Trust *peer.Trust

	// Credentials are the daemon's own; nil for none. They serve trusted callers only.
	Credentials credential.Source

	// Name makes a name for the holder of secrets that stays the same across restarts and
	// does not reveal them. It may be nil if nothing is recorded.
	Name func(secrets ...string) string
}

// ClientAuth says who answers a registry's challenges.
type ClientAuth int

// The daemon answers them, with its own credentials; or the client, with the client's own, always or
// where the daemon has no credential for the caller.
const (
	ByDaemon ClientAuth = iota
	ByClient
	ByEither
)

// Target is what a caller asks for: a repository of a registry, through its upstreams.
type Target struct {
	Repository string
	Upstreams  []Upstream
	ClientAuth ClientAuth

	// Presented is the caller's own Authorization.
	Presented auth.Presented
}

// Upstream is an upstream as far as access is concerned. A login, a client certificate and in
// relay mode the caller's own Authorization each belong to one origin: of a registry's several
// upstreams only the one that it is for gets it.
type Upstream struct {
	Name string // as upstream.Upstream.Name returns it
	URL  *url.URL

	// Certificate names the client certificate that is for this upstream; "" for none.
	Certificate string

	// Home means that the registry's own clients would ask this upstream: it gets the
	// Authorization that they send in relay mode.
	Home bool
}

// Trusts reports whether the request of ctx comes from a trusted engine.
func (p Policy) Trusts(ctx context.Context) bool {
	return !IsGuest(ctx) && !IsSite(ctx) && peer.Trusted(ctx, p.Trust)
}

// Identify returns who asks for t, given that the caller is trusted or not. Where a login may
// exist and cannot be read, the upstream is asked without one, since public content needs none.
// [Caller.Unread] then returns the reason.
func (p Policy) Identify(r *http.Request, t Target, trusted bool) Caller {
	c := Caller{Trusted: trusted, identities: make([]named, 0, len(t.Upstreams))}
	for _, u := range t.Upstreams {
		id, err := p.identity(r, t, u, trusted)
		if err != nil {
			c.unread = errors.Join(c.unread, err)
		}
		c.identities = append(c.identities, named{u.Name, id})
	}
	return c
}

// identity returns the identity in which u is asked, and why a login for u could not be read.
func (p Policy) identity(r *http.Request, t Target, u Upstream, trusted bool) (id Identity, unread error) {
	id = Identity{name: anonymous}
	switch {
	case t.ClientAuth == ByClient && u.Home:
		id = clientIdentity(t.Presented.For(u.URL))
	case t.ClientAuth != ByClient && trusted && p.Credentials != nil:
		cred, err := credential.LookupFor(r.Context(), p.Credentials, u.URL, t.Repository)
		unread = err
		id = daemonIdentity(cred, p.Name)
	}
	if t.ClientAuth == ByEither && u.Home && id.Credential.IsZero() {
		if own := t.Presented.For(u.URL); !own.IsZero() {
			id = clientIdentity(own)
		}
		id.MayLogIn = true
	}
	if trusted && u.Certificate != "" {
		id = id.withCertificate(u.Certificate)
	}
	return id, unread
}

// Caller is who sent a request, and in which identity each upstream is asked for it.
type Caller struct {
	Trusted    bool
	identities []named
	unread     error
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

// Unread returns why a login that may exist for one of the upstreams could not be read; nil if
// none is missing.
func (c Caller) Unread() error { return c.unread }

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

// Own reports whether an upstream is asked with the caller's own Authorization.
func (c Caller) Own() bool {
	return slices.ContainsFunc(c.identities, func(n named) bool { return !n.identity.Authorization.IsZero() })
}

// Login reports whether an upstream is asked with a login of the daemon's.
func (c Caller) Login() bool {
	return slices.ContainsFunc(c.identities, func(n named) bool { return !n.identity.Credential.IsZero() })
}
