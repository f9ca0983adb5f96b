package proxy

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// serveBase answers for /v2/: yes where we answer the challenges, and in relay mode
// what the upstream answers.
func (p *Proxy) serveBase(a *answer, c *call) error {
	if c.registry.relay {
		resp, _, err := c.ask(c.http.Context(), c.registry.pool, c.upstreamRequest(http.MethodGet))
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
	}
	a.Header().Set("Content-Type", "application/json")
	a.Header().Set("Content-Length", "2")
	a.WriteHeader(http.StatusOK)
	if c.http.Method == http.MethodHead {
		return nil
	}
	_, err := a.Write([]byte("{}"))
	return err
}

// ownRealm gives the URL of our token endpoint as the client reaches us. It names
// the registry where the Host does not: a client sends its query back with the rest.
func (c *call) ownRealm() string {
	u := url.URL{Scheme: "http", Host: c.http.Host, Path: "/v2/auth"}
	if c.Form == oci.ByNamespace {
		u.RawQuery = url.Values{"ns": {c.Registry}}.Encode()
	}
	return u.String()
}

// serveToken is the token endpoint of relay mode: it asks the upstream's, with the
// client's own Authorization and completed scopes.
func (p *Proxy) serveToken(a *answer, c *call) error {
	in := auth.TokenRequest{
		Authorization: credential.NewSecret(c.http.Header.Get("Authorization")),
		Query:         c.Query,
	}
	asked := c.Query["scope"]
	if c.http.Method == http.MethodPost {
		form, err := auth.ReadForm(c.http)
		if err != nil {
			return err
		}
		in.Form = form
		asked = append(asked, form["scope"]...)
	}
	name, scopes, err := auth.CompleteScopes(c.Registry, asked, p.routes, c.Form == oci.ByDefault)
	if err != nil {
		return p.withRoutes(err)
	}
	reg := p.routes.registries[name]
	if reg == nil || !reg.relay {
		return &oci.Error{Code: oci.NotFound, Message: "sidemirror answers this registry's challenges itself: no token is needed here"}
	}
	in.Scopes = scopes
	return relayToken(a, c, reg, in)
}

// relayToken asks the upstream and hands its answer on.
func relayToken(a *answer, c *call, reg *registry, in auth.TokenRequest) error {
	relayed, u, err := reg.pool.Relay(c.http.Context(), in)
	if err != nil {
		return err
	}
	c.upstream = u.Host()
	h := a.Header()
	h.Set("Content-Type", "application/json")
	if relayed.ContentType != "" {
		h.Set("Content-Type", relayed.ContentType)
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(relayed.Body)))
	if relayed.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(relayed.RetryAfter/time.Second)))
	}
	a.WriteHeader(relayed.Status)
	_, err = a.Write(relayed.Body)
	return err
}
