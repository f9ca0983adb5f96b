package proxy

import (
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/access"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// maxWild bounds the registries served by the wildcard at a time.
const maxWild = 64

// routes knows which registry a request means. It implements oci.Registries.
type routes struct {
	registries map[string]*registry
	hosts      map[string]string // host names → registry
	own        map[string]bool   // further host names of sidemirror
	fallback   string            // the registry of a request that names none
	table      map[string]string // hosts and registries → first upstream, for people

	config Config // for making registries by the wildcard
	any    *config.Registry

	mu   sync.Mutex
	wild map[string]*registry
}

func newRoutes(c Config) (*routes, error) {
	r := &routes{
		registries: map[string]*registry{},
		hosts:      map[string]string{},
		own:        map[string]bool{},
		fallback:   c.Default,
		table:      map[string]string{},
		config:     c,
		wild:       map[string]*registry{},
	}
	for _, h := range c.OwnHosts {
		r.own[strings.ToLower(h)] = true
	}
	for _, rc := range c.Registries {
		if rc.Name == config.Wildcard {
			r.any = &rc
			continue
		}
		reg, err := r.make(rc)
		if err != nil {
			r.close()
			return nil, err
		}
		r.registries[rc.Name] = reg
		for _, name := range append([]string{rc.Name}, rc.Hosts...) {
			r.table[name] = rc.Upstreams[0].Redacted()
		}
		for _, h := range rc.Hosts {
			r.hosts[strings.ToLower(h)] = rc.Name
		}
	}
	return r, nil
}

// say logs that an upstream's reach has changed.
func (r *routes) say(registry string, u *url.URL, err error) {
	entry := r.config.Log.WithFields(logrus.Fields{"registry": registry, "upstream": u.Host})
	if err != nil {
		entry.WithError(err).Warn("upstream out of reach")
		return
	}
	entry.Info("upstream within reach again")
}

// Serves implements [oci.Registries].
func (r *routes) Serves(name string) bool { return r.registries[name] != nil || r.any != nil }

// ByHost implements [oci.Registries].
func (r *routes) ByHost(host string) (string, bool) {
	name, ok := r.hosts[host]
	return name, ok
}

// Default implements [oci.Registries].
func (r *routes) Default() string { return r.fallback }

// lookup returns the registry of that name, which it makes if the wildcard stands for it; nil if it
// is not served.
func (r *routes) lookup(name string) *registry {
	if reg := r.registries[name]; reg != nil || r.any == nil || !oci.ValidRegistry(name) {
		return reg
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if reg := r.wild[name]; reg != nil {
		return reg
	}
	for old, reg := range r.wild {
		if len(r.wild) < maxWild {
			break
		}
		reg.pool.Close()
		delete(r.wild, old)
	}
	// Of the wildcard's settings only these count: its certificates are for no registry in
	// particular.
	timeouts := config.Registry{DialTimeout: r.any.DialTimeout, HeaderTimeout: r.any.HeaderTimeout, Parallel: r.any.Parallel}
	u := &url.URL{Scheme: "https", Host: name}
	up, err := upstream.New(upstream.Config{
		URL:          u,
		Registry:     timeouts,
		Unconfigured: true,
		UserAgent:    "sidemirror/" + r.config.Version,
		Changed:      func(err error) { r.say(name, u, err) },
	})
	if err != nil { // it reads no certificate, so there is nothing to fail
		return nil
	}
	reg := &registry{clientAuth: clientAuth(*r.any), parallel: r.any.Parallel}
	reg.add(up, u, true)
	r.wild[name] = reg
	return reg
}

// logIn reports whether a registry may want a login of the client of a request.
func (r *routes) logIn(req *http.Request) bool {
	for _, reg := range r.registries {
		if reg.clientAuthFor(req) != access.ByDaemon {
			return true
		}
	}
	return r.any != nil && protectedAuth(clientAuth(*r.any), req) != access.ByDaemon
}

func (r *routes) close() {
	for _, reg := range r.registries {
		reg.pool.Close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, reg := range r.wild {
		reg.pool.Close()
	}
}
