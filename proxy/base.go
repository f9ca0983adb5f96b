package proxy

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// serveBase responds to /v2/: with yes where sidemirror answers the challenges, and in relay
// mode with what the upstream says.
func (p *Proxy) serveBase(w *response, r *request) error {
	if r.registry.relay {
		q := r.query(http.MethodGet)
		resp, _, err := r.ask(r.http.Context(), &w.line, r.registry.pool, q)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", "2")
	w.WriteHeader(http.StatusOK)
	if r.http.Method == http.MethodHead {
		return nil
	}
	_, err := w.Write([]byte("{}"))
	return err
}

// ownRealm returns the URL of sidemirror's token endpoint as the client reaches it. It names
// the registry where the Host does not: a client sends its query back with the rest.
func (r *request) ownRealm() string {
	u := url.URL{Scheme: "http", Host: r.http.Host, Path: "/v2/auth"}
	if r.Form == oci.ByNamespace {
		u.RawQuery = url.Values{"ns": {r.Registry}}.Encode()
	}
	return u.String()
}

// serveToken is the token endpoint of relay mode: it asks the upstream's, with the client's
// own Authorization and completed scopes.
func (p *Proxy) serveToken(w *response, r *request) error {
	in := auth.TokenRequest{
		Authorization: credential.NewSecret(r.http.Header.Get("Authorization")),
		Query:         r.Query,
	}
	asked := r.Query["scope"]
	if r.http.Method == http.MethodPost {
		form, err := auth.ReadForm(r.http)
		if err != nil {
			return err
		}
		in.Form = form
		asked = append(asked, form["scope"]...)
	}
	name, scopes, err := auth.CompleteScopes(r.Registry, asked, p.routes, r.Form == oci.ByDefault)
	if err != nil {
		return p.withRoutes(err)
	}
	reg := p.routes.registries[name]
	if reg == nil || !reg.relay {
		return &oci.Error{Code: oci.NotFound, Message: "sidemirror answers this registry's challenges itself: no token is needed here"}
	}
	in.Scopes = scopes
	return relayToken(w, r, reg, in)
}

// relayToken asks the upstream and passes its answer on.
func relayToken(w *response, r *request, reg *registry, in auth.TokenRequest) error {
	if len(reg.home()) == 0 {
		return &oci.Error{Code: oci.NotFound, Message: "none of this registry's upstreams is the registry itself, so a login of its clients is sent to none of them"}
	}
	as := func(*upstream.Upstream) upstream.Identity {
		return upstream.Identity{Certificate: r.caller.Trusted}
	}
	relayed, u, err := reg.home().Relay(r.http.Context(), in, as)
	if err != nil {
		return err
	}
	w.line.answeredBy(u)
	h := w.Header()
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
	w.WriteHeader(relayed.Status)
	_, err = w.Write(relayed.Body)
	return err
}
