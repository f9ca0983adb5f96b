package proxy

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/access"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// maxUnnamed bounds the registries at a time that are served without a table of their own.
const maxUnnamed = 64

// routes knows which registry a request means. It implements oci.Registries.
type routes struct {
	registries map[string]*registry
	hosts      map[string]string // host names → registry
	own        map[string]bool   // further host names of sidemirror
	fallback   string            // the registry of a request that names none
	table      map[string]string // hosts and registries → first upstream, for people

	config Config // for making registries without a table
	any    *config.Registry

	mu      sync.Mutex
	unnamed map[string]*unnamedRegistry
}

// unnamedRegistry is a registry without a table.
type unnamedRegistry struct {
	*registry
	used time.Time
}

func newRoutes(c Config) (*routes, error) {
	r := &routes{
		registries: map[string]*registry{},
		hosts:      map[string]string{},
		own:        map[string]bool{},
		fallback:   c.Default,
		table:      map[string]string{},
		config:     c,
		unnamed:    map[string]*unnamedRegistry{},
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
			r.table[name] = rc.Upstreams[0].Address().Redacted()
		}
		for _, h := range rc.Hosts {
			r.hosts[strings.ToLower(h)] = rc.Name
		}
	}
	return r, nil
}

// say logs that an upstream's reach has changed.
func (r *routes) say(registry, upstream string, err error) {
	r.config.Observer.ReachChanged(upstream, err)
	entry := r.config.Log.WithFields(logrus.Fields{"registry": registry, "upstream": upstream})
	if err != nil {
		entry.WithError(err).Warn("upstream out of reach")
		return
	}
	entry.Info("upstream within reach again")
}

// saySkipped logs that an upstream is skipped for a while, or no longer is.
func (r *routes) saySkipped(registry, upstream string, err error) {
	r.config.Observer.SkipChanged(upstream, err)
	entry := r.config.Log.WithFields(logrus.Fields{"registry": registry, "upstream": upstream})
	if err != nil {
		entry.WithError(err).Warn("upstream skipped for a while: another one is faster")
		return
	}
	entry.Info("upstream no longer skipped")
}

// Serves implements [oci.Registries].
func (r *routes) Serves(name string) bool { return r.registries[name] != nil || r.servesUnnamed(name) }

// ByHost implements [oci.Registries].
func (r *routes) ByHost(host string) (string, bool) {
	name, ok := r.hosts[host]
	return name, ok
}

// Default implements [oci.Registries].
func (r *routes) Default() string { return r.fallback }

// servesUnnamed reports whether a registry without a table is served: the wildcard stands for it, or
// the daemon has a login for it.
func (r *routes) servesUnnamed(name string) bool {
	return r.any != nil || r.config.LoggedIn != nil && r.config.LoggedIn(name)
}

// lookup returns the registry of that name, which it makes if it is served without a table; nil if it
// is not served.
func (r *routes) lookup(name string) *registry {
	if reg := r.registries[name]; reg != nil || !oci.ValidRegistry(name) || !r.servesUnnamed(name) {
		return reg
	}
	return r.withoutTable(name)
}

// withoutTable returns a registry at its own host; nil if that is a host that it must not be at.
func (r *routes) withoutTable(name string) *registry {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reg := r.unnamed[name]; reg != nil {
		reg.used = time.Now()
		return reg.registry
	}
	if len(r.unnamed) >= maxUnnamed {
		r.closeOldest()
	}
	settings := config.NewRegistry(config.Wildcard)
	if r.any != nil {
		settings = *r.any
	}
	// Its certificates are for no registry in particular.
	settings.CA, settings.Cert, settings.Key, settings.Realms = "", "", "", nil
	adopted := r.config.Adopted[name]
	u := config.NewUpstream(&url.URL{Scheme: "https", Host: name})
	if adopted.PlainHTTP {
		u.URL.Scheme = "http"
	}
	up, err := upstream.New(upstream.Config{
		URL:          u.URL,
		Registry:     settings,
		Adopted:      adopted.Adopted,
		Unconfigured: true,
		Forward:      r.config.Forward,
		Own:          r.config.Listen,
		UserAgent:    "sidemirror/" + r.config.Version,
		Changed:      func(err error) { r.say(name, u.Label(), err) },
		Observer:     r.config.Observer,
	})
	if err != nil {
		if adopted.CA != nil || adopted.Clients != nil {
			r.config.Log.WithError(err).WithField("registry", name).Warn("the engines' certificates cannot be used; the engines ask the registry directly")
		}
		return nil
	}
	reg := &registry{clientAuth: clientAuth(settings), parallel: settings.Parallel}
	reg.add(up, u, true)
	r.unnamed[name] = &unnamedRegistry{reg, time.Now()}
	return reg
}

// closeOldest closes the registry without a table that was asked for longest ago.
func (r *routes) closeOldest() {
	oldest := ""
	for name, reg := range r.unnamed {
		if oldest == "" || reg.used.Before(r.unnamed[oldest].used) {
			oldest = name
		}
	}
	r.unnamed[oldest].pool.Close()
	delete(r.unnamed, oldest)
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
	for _, reg := range r.unnamed {
		reg.pool.Close()
	}
}
