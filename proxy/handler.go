package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/peer"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// call is one request being served, with what is known of it.
type call struct {
	oci.Request
	http *http.Request

	registry *registry
	access   *auth.Access // nil in relay mode, in which the client answers challenges
	identity identity
	mirror   bool // the engine has its own way on if we fail
	fallback bool // and so have we: the cache

	upstream string // who answered, for the access line
	cached   string // how the cache served: hit, fill, miss, stale; likewise
}

// handlers stand by kind of request.
var handlers = [...]func(*Proxy, *answer, *call) error{
	oci.Base:      (*Proxy).serveBase,
	oci.Blob:      (*Proxy).serveBlob,
	oci.Manifest:  (*Proxy).serveManifest,
	oci.Tags:      (*Proxy).serveList,
	oci.Referrers: (*Proxy).serveList,
	oci.Token:     (*Proxy).serveToken,
}

// ServeHTTP answers one request: the page at "/", and the registry API below /v2/.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := newAnswer(w)
	c := &call{http: r}
	err := p.serve(a, c)
	whole := true
	if err != nil {
		if whole = !a.begun(); whole {
			writeError(a, c, err)
		}
	}
	p.logAccess(a, c, err)
	if !whole {
		// The answer had begun and cannot be finished. It is broken off, so that the
		// client does not take it for whole; after its header is out, since a client
		// that has seen nothing may ask the same again at once.
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// serve answers, or gives the error to answer with. An error after the answer has
// begun means that it must be broken off.
func (p *Proxy) serve(a *answer, c *call) error {
	if err := p.gate(c.http); err != nil {
		return err
	}
	if c.http.URL.Path == "/" {
		p.page.ServeHTTP(a, c.http)
		return nil
	}
	a.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	req, err := oci.ParseRequest(c.http, p.routes)
	if err != nil {
		return p.withRoutes(err)
	}
	c.Request = req
	c.mirror = req.Form == oci.ByNamespace || req.Form == oci.ByDefault
	a.Header().Set("OCI-Namespace", req.Registry)
	if full := oci.Complete(req.Registry, req.Repository); full != req.Repository {
		redirectTo(a, c, full)
		return nil
	}
	if err := p.admit(c); err != nil {
		return p.withRoutes(err)
	}
	if p.cache != nil {
		c.identity = p.identify(c)
	}
	return handlers[req.Kind](p, a, c)
}

// redirectTo answers as the worker does to a Docker Hub name without "library/".
func redirectTo(a *answer, c *call, repository string) {
	c.Repository = repository
	a.Header().Set("Location", withQuery(c.LocalPath(), c.http.URL.RawQuery))
	a.WriteHeader(http.StatusMovedPermanently)
}

// withQuery puts a path of ours and a query together. The path is taken as it is:
// package url would escape the brackets of an IPv6 registry, which no client
// unescapes.
func withQuery(path, query string) string {
	if query == "" {
		return path
	}
	return path + "?" + query
}

// admit says who asks and with what: the daemon's credential for a trusted engine,
// nothing for anybody else, the client's own in relay mode.
func (p *Proxy) admit(c *call) error {
	trusted := peer.Trusted(c.http.Context(), p.trusted)
	c.registry = p.routes.registries[c.Registry]
	if c.registry == nil && trusted {
		c.registry = p.routes.lookup(c.Registry)
	}
	if c.registry == nil {
		return &oci.Error{Code: oci.RegistryUnknown, Message: "this registry is not configured, and others are served to trusted engines only"}
	}
	if c.registry.relay {
		return nil
	}
	c.access = &auth.Access{Repository: c.Repository}
	if trusted && p.credentials != nil {
		cred, err := p.credentials.Lookup(c.http.Context(), c.Registry, c.Repository)
		if err != nil {
			return &oci.Error{Code: oci.Unavailable, Message: "the credential for this registry cannot be read; the log of sidemirror says why", Err: err}
		}
		c.access.Credential = cred
	}
	return nil
}

// upstreamRequest makes the request for what c asks.
func (c *call) upstreamRequest(method string) upstream.Request {
	r := upstream.Request{
		Method:  method,
		Path:    c.Path(),
		Query:   c.Query,
		Header:  http.Header{},
		Access:  c.access,
		Patient: !c.mirror && !c.fallback,
	}
	if accept := c.http.Header.Values("Accept"); len(accept) > 0 {
		r.Header["Accept"] = accept
	}
	if h := c.http.Header.Get("Authorization"); h != "" && c.access == nil {
		r.Header.Set("Authorization", h)
	}
	return r
}

// ask sends r to the registry's upstreams, and notes who answered.
func (c *call) ask(ctx context.Context, pool upstream.Pool, r upstream.Request) (*http.Response, *upstream.Upstream, error) {
	resp, u, err := c.send(ctx, pool, r)
	if u != nil {
		c.upstream = u.Host()
	}
	return resp, u, err
}

// send sends r to the pool and turns an answer that is neither 2xx nor 416 into the
// error to give the client. It changes nothing of c, which may be long over.
func (c *call) send(ctx context.Context, pool upstream.Pool, r upstream.Request) (*http.Response, *upstream.Upstream, error) {
	resp, u, err := pool.Do(ctx, r)
	if err != nil {
		return nil, u, err
	}
	if ok := resp.StatusCode/100 == 2 || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable; !ok {
		defer resp.Body.Close()
		e := c.refusal(resp, u)
		e.Upstream = resp.StatusCode
		return nil, u, e
	}
	return resp, u, nil
}

// refusal tells a client what an upstream's refusal means to it (protocol.md §5).
func (c *call) refusal(resp *http.Response, u *upstream.Upstream) *oci.Error {
	says := fmt.Sprintf("%s answers %d", u.Host(), resp.StatusCode)
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		e := &oci.Error{Code: oci.Unauthorized, Message: says}
		if c.registry.relay {
			e.Challenge = u.RelayChallenge(resp, c.ownRealm(), c.localRepository())
		}
		return e
	case http.StatusForbidden:
		return &oci.Error{Code: oci.Denied, Message: says}
	case http.StatusNotFound:
		return &oci.Error{Code: c.unknown(), Message: says}
	}
	e := &oci.Error{Code: oci.Unavailable, Message: says}
	if !c.mirror && resp.StatusCode >= 400 && resp.StatusCode != http.StatusRequestTimeout {
		e.Status = resp.StatusCode
	}
	return e
}

// unknown gives the code for what is not there.
func (c *call) unknown() oci.Code {
	switch c.Kind {
	case oci.Blob:
		return oci.BlobUnknown
	case oci.Manifest:
		return oci.ManifestUnknown
	}
	return oci.NameUnknown
}

// localRepository gives the repository by the name that the client knows it by.
func (c *call) localRepository() string {
	if c.Prefixed && c.Form == oci.ByPrefix {
		return c.Registry + "/" + c.Repository
	}
	return c.Repository
}

// withRoutes adds to the error of an unknown registry what is served.
func (p *Proxy) withRoutes(err error) error {
	if e, ok := errors.AsType[*oci.Error](err); ok && (e.Code == oci.RegistryUnknown || e.Code == oci.NotFound) {
		e.Routes = p.routes.table
	}
	return err
}

// writeError answers with err. In mirror form no status goes out that an engine
// would dwell on: containerd asks five times more after a 429.
func writeError(a *answer, c *call, err error) {
	e := *oci.AsError(err)
	if status := e.HTTPStatus(); c.mirror && (status == http.StatusTooManyRequests || status == http.StatusRequestTimeout) {
		e.Status = http.StatusBadGateway
	}
	oci.WriteError(a, &e)
}

// upstreamStatus gives the status of the upstream's that err comes of, 0 if of none.
func upstreamStatus(err error) int {
	if err == nil {
		return 0
	}
	return oci.AsError(err).Upstream
}

// repository names what c asks in, for the cache.
func (c *call) repository() cache.Repository {
	return cache.Repository{Registry: c.Registry, Name: c.Repository}
}
