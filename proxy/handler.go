package proxy

import (
	"errors"
	"net/http"

	"github.com/sidemirror/sidemirror/proxy/access"
	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/visitor"
)

// handlers are the handlers by kind of request.
var handlers = [...]func(*Proxy, *response, *request) error{
	oci.Base:      (*Proxy).serveBase,
	oci.Blob:      (*Proxy).serveBlob,
	oci.Manifest:  (*Proxy).serveManifest,
	oci.Tags:      (*Proxy).serveList,
	oci.Referrers: (*Proxy).serveList,
	oci.Token:     (*Proxy).serveToken,
}

// ServeHTTP responds to one request: with the page at "/", and with the registry API below
// /v2/.
func (p *Proxy) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	r = p.asReached(r)
	w := newResponse(rw, r)
	defer func() { w.line.visit.Leave(); w.memory.Release() }()
	err := p.serve(w, r)
	broken := err != nil && w.begun()
	if err != nil && !broken {
		writeError(w, err)
	}
	p.ended(&w.line, err)
	if broken {
		// The body cannot be completed. Breaking the connection keeps the client from taking
		// it for whole. The header must be out first: a client that has seen nothing may send
		// the same request again at once.
		_ = http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	}
}

// serve responds to a request, or returns the error to respond with. If the body has begun,
// an error means that the connection must be broken.
func (p *Proxy) serve(w *response, r *http.Request) error {
	w.line.trusted = p.policy.Trusts(r.Context())
	if access.IsSite(r.Context()) {
		if err := p.receive(w, r); err != nil {
			return err
		}
		r = r.WithContext(visitor.With(r.Context(), w.line.visit))
	}
	if err := p.gate(r); err != nil {
		return err
	}
	if r.URL.Path == "/" {
		p.page.ServeHTTP(w, r)
		return nil
	}
	w.setHeader("Docker-Distribution-Api-Version", "registry/2.0")
	asked, err := oci.ParseRequest(r, p.routes)
	if err != nil {
		return p.withRoutes(r, err)
	}
	w.line.asked = asked
	reg, err := p.find(r, asked.Registry, w.line.trusted)
	if err != nil {
		return p.withRoutes(r, err)
	}
	if done, err := p.logIn(w, r, asked); done || err != nil {
		return err
	}
	w.setHeader("Oci-Namespace", asked.Registry)
	if full := oci.Complete(asked.Registry, asked.Repository); full != asked.Repository {
		redirectTo(w, r, asked, full)
		return nil
	}
	p.follow(&w.line)
	req := p.admit(r, asked, reg, w.line.trusted)
	req.span = w.line.span
	w.memory = req.memory
	w.line.credential = req.generation()
	if isTestImage(req) {
		return serveTestImage(w, req)
	}
	err = p.guarded(w, req.password(), func() error {
		return p.afterRefusal(req, handlers[asked.Kind](p, w, req))
	}, tookPassword)
	return withUnread(err, req.caller.Unread())
}

// withUnread says in a refusal that a login could not be read. unread is the reason, or nil.
func withUnread(err, unread error) error {
	e, ok := errors.AsType[*oci.Error](err)
	if unread == nil || !ok {
		return err
	}
	switch e.Code {
	case oci.Unauthorized, oci.Denied, oci.NameUnknown, oci.ManifestUnknown, oci.BlobUnknown:
	default:
		return err
	}
	explained := *e
	explained.Message += "; sidemirror asked without a login, because it cannot read one: run sidemirror status"
	explained.Passed = nil // they would be sent in place of the message
	explained.Err = errors.Join(e.Err, unread)
	return &explained
}

// redirectTo responds as the worker does to a Docker Hub name without "library/".
func redirectTo(w *response, r *http.Request, asked oci.Request, repository string) {
	asked.Repository = repository
	w.Header().Set("Location", withQuery(asked.LocalPath(), r.URL.RawQuery))
	w.WriteHeader(http.StatusMovedPermanently)
}

// withQuery joins a local path and a query. It takes the path as it is: package url would
// escape the brackets of an IPv6 registry, which no client unescapes.
func withQuery(path, query string) string {
	if query == "" {
		return path
	}
	return path + "?" + query
}

// admit identifies the caller of a request to a registry, once per request.
func (p *Proxy) admit(r *http.Request, asked oci.Request, reg *registry, trusted bool) *request {
	var presented auth.Presented
	if asked.Kind != oci.Token { // there the client sends its login itself
		presented = auth.Present(r.Header.Get("Authorization"), asked.Registry, asked.Repository)
	}
	caller := p.identify(r, reg, asked.Repository, presented, trusted)
	return &request{
		Request:  asked,
		http:     r,
		registry: reg,
		caller:   caller,
		refusals: p.refusals,
		quota:    p.quotaFor(r, asked.Registry, caller),
		memory:   p.memory.Allowance(caller),
		mirror:   mirrorForm(asked) || choosesMirror(r, asked),
	}
}

// find returns the registry of that name, for the sender of r.
func (p *Proxy) find(r *http.Request, name string, trusted bool) (*registry, error) {
	reg := p.routes.registries[name]
	if access.IsSite(r.Context()) && !p.routes.onSite(name) {
		return nil, oci.NotServed(name)
	}
	if reg == nil && trusted {
		reg = p.routes.lookup(name)
	}
	switch {
	case reg == nil && p.routes.any == nil:
		// Another error would tell for which registries this host has logins.
		return nil, oci.NotServed(name)
	case reg == nil:
		return nil, &oci.Error{Code: oci.RegistryUnknown, Message: "this registry is not configured, and others are served to trusted engines only"}
	}
	return reg, nil
}

// identify returns who asks for a repository of a registry.
func (p *Proxy) identify(r *http.Request, reg *registry, repository string, presented auth.Presented, trusted bool) access.Caller {
	return p.policy.Identify(r, access.Target{
		Repository: repository,
		Upstreams:  reg.upstreams,
		ClientAuth: reg.clientAuthFor(r),
		Presented:  presented,
	}, trusted)
}

// mirrorForm reports whether an engine that asks in this form falls back to the registry if
// sidemirror fails.
func mirrorForm(asked oci.Request) bool {
	return asked.Form == oci.ByNamespace || asked.Form == oci.ByDefault
}

// withRoutes adds to the error of an unknown registry which registries are served.
func (p *Proxy) withRoutes(r *http.Request, err error) error {
	if e, ok := errors.AsType[*oci.Error](err); ok && (e.Code == oci.RegistryUnknown || e.Code == oci.NotFound) {
		e.Routes = p.routes.table
		if access.IsSite(r.Context()) {
			e.Routes = p.routes.hosts
		}
	}
	return err
}

// writeError responds with err. In mirror form it sends no status on which an engine would
// dwell: containerd repeats a request five times after a 429.
func writeError(w *response, err error) {
	e := *oci.AsError(err)
	if _, own := errors.AsType[ownRefusal](err); !own && !w.line.trusted {
		e = disclosed(e)
	}
	fallsBack := mirrorForm(w.line.asked) || choosesMirror(w.line.http, w.line.asked)
	if status := e.HTTPStatus(); fallsBack && (status == http.StatusTooManyRequests || status == http.StatusRequestTimeout) {
		e.Status = http.StatusBadGateway
	}
	oci.WriteError(w, &e)
}
