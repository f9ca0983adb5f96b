// Package proxy is the registry towards the engines: a read-only OCI Distribution
// server (specification 1.1) in front of any number of registries.
//
// A request is parsed (package oci), its sender looked up (peer), its registry
// chosen, and its content fetched from an upstream (upstream) with the credential
// that the sender may use (auth, credential). Whatever goes wrong is answered
// quickly and plainly, since the engine then goes to the registry by itself.
package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/proxy/access"
	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

const (
	probeTimeout     = 20 * time.Second
	defaultFreshness = 5 * time.Second
)

// Proxy serves registries. It is an http.Handler; its server's ConnContext must be
// peer.ConnContext, or everybody is taken for a stranger.
type Proxy struct {
	routes    *routes
	policy    access.Policy
	page      http.Handler
	cache     *cache.Dir     // nil: nothing is stored
	grants    *access.Grants // nil without a cache
	freshness Freshness
	inquiries *inquiries
	log       *logrus.Logger
}

// New makes a Proxy. It dials nothing. It fails where a certificate that c names
// cannot be read.
func New(c Config) (*Proxy, error) {
	if c.Log == nil {
		c.Log = logrus.New()
		c.Log.SetOutput(io.Discard)
	}
	if c.Page == nil {
		c.Page = http.NotFoundHandler()
	}
	if c.Freshness.Timeout == 0 {
		c.Freshness.Timeout = defaultFreshness
	}
	routes, err := newRoutes(c)
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		routes:    routes,
		policy:    access.Policy{TrustedUIDs: c.TrustedUIDs, Credentials: c.Credentials},
		page:      c.Page,
		cache:     c.Cache,
		freshness: c.Freshness,
		inquiries: newInquiries(c.Freshness.Timeout),
		log:       c.Log,
	}
	if c.Cache != nil {
		p.policy.Name = c.Cache.Identity
		p.grants = access.NewGrants(c.Cache, c.Freshness.MaxStale)
	}
	return p, nil
}

// Probe asks every registry marked for it whether it is there. What cannot be
// reached is said in the log, once, as whenever an upstream's reach changes.
func (p *Proxy) Probe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var wait sync.WaitGroup
	for _, reg := range p.routes.registries {
		if !reg.probe {
			continue
		}
		for _, u := range reg.pool {
			wait.Go(func() {
				resp, err := u.Do(ctx, upstream.Request{Method: http.MethodGet, Path: "/v2/"})
				if err == nil {
					_ = resp.Body.Close()
				}
			})
		}
	}
	wait.Wait()
}

// Login checks cred against registry, as [upstream.Upstream.Login] does, on the
// first of its upstreams that answers.
func (p *Proxy) Login(ctx context.Context, registry string, cred credential.Credential) error {
	reg := p.routes.lookup(registry)
	if reg == nil {
		return fmt.Errorf("registry %q is not configured", registry)
	}
	var err error
	for _, u := range reg.pool {
		if err = u.Login(ctx, cred); !upstream.OutOfReach(err) {
			break
		}
	}
	return err
}

// Close ends what the proxy does by itself. Requests that are being served go on.
func (p *Proxy) Close() {
	p.inquiries.close()
	p.routes.close()
}
