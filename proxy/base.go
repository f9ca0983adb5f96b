package proxy

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sidemirror/sidemirror/proxy/access"
	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/forwarded"
	"github.com/sidemirror/sidemirror/proxy/observe"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// serveBase responds to /v2/: with a challenge to a client that may need a login, and otherwise with
// yes. A client that pulls by prefix takes the response for that of every registry, so it does not
// depend on one of them. If the request names a registry whose client is asked for its login, the
// upstream decides.
func (p *Proxy) serveBase(w *response, r *request) error {
	named := r.Form != oci.ByDefault
	mode := r.registry.clientAuthFor(r.http)
	switch {
	case !named && p.routes.logIn(r.http) && !auth.Present(r.http.Header.Get("Authorization"), "", "").Own(),
		named && mode == access.ByEither && !r.caller.Login() && !r.caller.Own():
		return &oci.Error{
			Code: oci.Unauthorized, Message: "a registry may need a login: fetch a token first",
			Challenge: auth.BearerChallenge(r.ownRealm(), ""),
		}
	case named && mode != access.ByDaemon && !r.caller.Login():
		resp, _, err := r.ask(r.http.Context(), &w.line, r.registry.pool, r.query(http.MethodGet))
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
	u := url.URL{Scheme: forwarded.Scheme(r.http), Host: r.http.Host, Path: "/v2/auth"}
	if r.Form == oci.ByNamespace {
		u.RawQuery = url.Values{"ns": {r.Registry}}.Encode()
	}
	return u.String()
}

// serveToken is sidemirror's token endpoint. It asks the upstream's, with the client's own login and
// completed scopes. A client that needs no login gets a token that gives it nothing.
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
	var err error
	if in.Registry, in.Scopes, err = auth.CompleteScopes(r.Registry, asked, p.routes, r.Form == oci.ByDefault); err != nil {
		return p.withRoutes(r.http, err)
	}
	if r.Form == oci.ByDefault && len(in.Scopes) == 0 {
		// No registry is named, as by "docker login" for sidemirror's own address. A login for one
		// registry must not be sent to another, so it is checked when an image is pulled.
		return writeToken(w, auth.NoLogin())
	}
	reg := r.registry
	if in.Registry != r.Registry {
		if reg, err = p.find(r.http, in.Registry, w.line.trusted); err != nil {
			return p.withRoutes(r.http, err)
		}
	}
	switch reg.clientAuthFor(r.http) {
	case access.ByDaemon:
		return writeToken(w, auth.NoLogin())
	case access.ByEither:
		if done, err := p.withoutLogin(w, r, reg, in); done {
			return err
		}
	}
	status := 0
	return p.guarded(w, in.Fingerprint(), func() (err error) {
		status, err = relayToken(w, r, reg, in)
		return err
	}, func(error) (right, known bool) { return tookLogin(status) })
}

// withoutLogin responds to a client that needs no login of its own, because the daemon has one for
// each repository or anonymous clients may be served, and to one that has none although it needs
// one. It asks no upstream. It reports whether it has responded.
func (p *Proxy) withoutLogin(w *response, r *request, reg *registry, in auth.TokenRequest) (bool, error) {
	byDaemon := len(in.Scopes) > 0
	for _, scope := range in.Scopes {
		one := *r
		one.registry, one.Registry, one.Repository = reg, in.Registry, auth.ScopeRepository(scope)
		one.caller = p.identify(r.http, reg, one.Repository, auth.Presented{}, w.line.trusted)
		if one.caller.Login() {
			continue
		}
		byDaemon = false
		if e := p.refusals.recent(&one); e != nil && in.Anonymous() {
			return true, e
		}
	}
	if !byDaemon && !in.Anonymous() {
		return false, nil
	}
	return true, writeToken(w, auth.NoLogin())
}

// relayToken asks the upstream and passes its answer on, of which it returns the status.
func relayToken(w *response, r *request, reg *registry, in auth.TokenRequest) (status int, err error) {
	if len(reg.home()) == 0 {
		return 0, &oci.Error{Code: oci.NotFound, Message: "none of this registry's upstreams is the registry itself, so a login of its clients is sent to none of them"}
	}
	as := func(*upstream.Upstream) upstream.Identity {
		return upstream.Identity{Certificate: r.caller.Trusted}
	}
	relayed, u, err := reg.home().Relay(observe.WithSpan(r.http.Context(), r.span), in, as)
	if err != nil {
		return oci.AsError(err).Upstream, err
	}
	w.line.answeredBy(u)
	return relayed.Status, writeToken(w, relayed)
}

// writeToken sends the response of a token server.
func writeToken(w *response, relayed *auth.Relayed) error {
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
	_, err := w.Write(relayed.Body)
	return err
}
