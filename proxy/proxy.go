// Package proxy is the registry that engines talk to: a read-only OCI Distribution server
// (specification 1.1) in front of any number of registries.
//
// Package oci parses a request and package access identifies its caller, once. A handler then looks
// for the content in the cache, asks the upstreams in the caller's identities, or both. Failures are
// reported quickly and plainly, since the engine then falls back to the registry.
package proxy

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/proxy/access"
	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/observe"
	"github.com/sidemirror/sidemirror/proxy/prefetch"
	"github.com/sidemirror/sidemirror/proxy/shared"
	"github.com/sidemirror/sidemirror/proxy/transfer"
	"github.com/sidemirror/sidemirror/proxy/upstream"
	"github.com/sidemirror/sidemirror/proxy/visitor"
)

const (
	probeTimeout     = 20 * time.Second
	defaultFreshness = 5 * time.Second

	// untrustedMemory is how many bytes of response bodies are held for untrusted callers.
	untrustedMemory = 64 << 20
)

// Proxy serves registries. It is an http.Handler. The ConnContext of its server must be
// peer.ConnContext, or every caller is untrusted.
type Proxy struct {
	routes    *routes
	policy    access.Policy
	page      http.Handler
	cache     *cache.Dir // nil: nothing is stored
	transfers *transfer.Transfers
	own       *transfer.Transfers // the same, if they end with the proxy
	grants    *access.Grants      // nil without a cache
	memory    *access.Budget      // of untrusted callers
	freshness Freshness
	inquiries *inquiries
	refusals  *refusals
	guesses   *access.Guesses
	prefetch  *prefetch.Prefetcher // nil: off
	shared    *shared.Store        // nil: nothing is shared with other hosts
	public    public
	log       *logrus.Logger
	accessLog AccessLog // nil: none
	observer  observe.Observer
	tracer    observe.Tracer // nil: no request is followed
	notices   func(registry string) []string

	guestQuota *access.Quota // nil: no login is lent to guests

	// Of the site:
	visitors       *visitor.Site
	siteQuota      *access.Quota // nil: no login is lent to visitors
	trustedProxies []netip.Prefix

	sharePrivate bool
}

// New makes a Proxy. It dials nothing. It fails if a certificate that c names cannot be read.
func New(c Config) (*Proxy, error) {
	if c.Log == nil {
		c.Log = logrus.New()
		c.Log.SetOutput(io.Discard)
	}
	if c.Visitors == nil {
		c.Visitors = visitor.New()
	}
	if c.Page == nil {
		c.Page = http.NotFoundHandler()
	}
	if c.Freshness.Timeout == 0 {
		c.Freshness.Timeout = defaultFreshness
	}
	if c.Notices == nil {
		c.Notices = func(string) []string { return nil }
	}
	if c.Observer == nil {
		c.Observer = observe.Nothing{}
	}
	routes, err := newRoutes(c)
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		routes:    routes,
		policy:    access.Policy{Trust: c.Trust, Credentials: c.Credentials},
		page:      c.Page,
		cache:     c.Cache,
		transfers: c.Transfers,
		memory:    access.NewBudget(untrustedMemory),
		freshness: c.Freshness,
		inquiries: newInquiries(c.Freshness.Timeout),
		refusals:  &refusals{},
		guesses:   access.NewGuesses(),
		log:       c.Log,
		accessLog: c.AccessLog,
		observer:  c.Observer,
		tracer:    c.Tracer,
		notices:   c.Notices,

		guestQuota: access.NewQuota(c.Credentials, c.GuestLogins),

		visitors:       c.Visitors,
		siteQuota:      access.NewQuota(c.Credentials, c.Site.Logins),
		trustedProxies: c.Site.TrustedProxies,
	}
	if p.transfers == nil {
		p.own = transfer.New(c.Cache)
		p.transfers = p.own
	}
	if c.Cache != nil {
		p.policy.Name = c.Cache.Identity
		p.grants = access.NewGrants(c.Cache, c.Freshness.MaxStale)
	}
	p.prefetch = p.newPrefetcher(c)
	if c.Cache != nil {
		p.shared, p.sharePrivate = c.Shared, c.SharePrivate
	}
	return p, nil
}

// Probe asks every registry that the configuration names whether it is there. An upstream that
// cannot be reached is logged once, as whenever its reach changes.
func (p *Proxy) Probe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var wait sync.WaitGroup
	if p.shared != nil {
		wait.Go(func() { p.shared.Probe(ctx) })
	}
	for _, reg := range p.routes.registries {
		if !reg.probe {
			continue
		}
		for _, u := range reg.pool {
			wait.Go(func() { ask(ctx, u) })
		}
	}
	wait.Wait()
}

// Recheck asks the upstreams that are out of reach whether they are there again. It waits for their
// responses.
func (p *Proxy) Recheck(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if p.shared != nil {
		p.shared.Ready() // asks again, if the time has come
	}
	var wait sync.WaitGroup
	for _, u := range p.routes.upstreams() {
		if !u.Reachable() {
			wait.Go(func() { ask(ctx, u) })
		}
	}
	wait.Wait()
}

// ask asks an upstream whether it is there. Its health records the outcome.
func ask(ctx context.Context, u *upstream.Upstream) {
	resp, err := u.Do(ctx, upstream.Request{
		Method: http.MethodGet, Path: "/v2/", Identity: upstream.Identity{Certificate: true},
	})
	if err == nil {
		_ = resp.Body.Close()
	}
}

// Login checks cred, which will be stored under the key of registry and namespace, with the
// upstream that it is for, as [upstream.Upstream.Login] does. It does not ask a mirror that comes
// first in the configuration.
func (p *Proxy) Login(ctx context.Context, registry, namespace string, cred credential.Credential) error {
	u := p.routes.at(registry, namespace)
	if u == nil {
		return &NoUpstreamError{Registry: registry, Instead: p.routes.hostsOf(registry)}
	}
	return u.Login(ctx, cred)
}

// NoUpstreamError says that no upstream is at the host that a login is for.
type NoUpstreamError struct {
	Registry string
	Instead  []string // where the registry of that name is fetched from, if it is configured
}

func (e *NoUpstreamError) Error() string {
	if len(e.Instead) == 0 {
		return "registry " + e.Registry + " is not configured, and sidemirror asks such a registry only at an address that is not loopback, link-local or reserved"
	}
	return "registry " + e.Registry + " is fetched from " + strings.Join(e.Instead, " and ") + ", and a login is sent only to the host that it is for"
}

// Close ends the background work of the proxy. Requests that are being served go on.
func (p *Proxy) Close() {
	p.inquiries.close()
	if p.prefetch != nil {
		p.prefetch.Close()
	}
	if p.own != nil {
		p.own.Close()
	}
	p.routes.close()
}
