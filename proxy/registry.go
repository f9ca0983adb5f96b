package proxy

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/access"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/forwarded"
	"github.com/sidemirror/sidemirror/proxy/upstream"
	"github.com/sidemirror/sidemirror/proxy/visitor"
)

// registry is one registry served.
type registry struct {
	clientAuth access.ClientAuth
	probe      bool
	parallel   int // over how many connections a large blob is fetched
	pool       upstream.Pool
	upstreams  []access.Upstream // the same, as far as access is concerned
}

// add adds an upstream. home says that it is the registry itself.
func (r *registry) add(u *upstream.Upstream, at config.Upstream, home bool) {
	r.pool = append(r.pool, u)
	r.upstreams = append(r.upstreams, access.Upstream{
		Name: u.Name(), URL: at.Address(), Certificate: u.Certificate(), Home: home,
	})
}

// upstream returns the upstream of that name; nil if there is none.
func (r *registry) upstream(name string) *upstream.Upstream {
	for _, u := range r.pool {
		if u.Name() == name {
			return u
		}
	}
	return nil
}

// access returns the upstream as far as access is concerned.
func (r *registry) access(u *upstream.Upstream) access.Upstream {
	for i := range r.pool {
		if r.pool[i] == u {
			return r.upstreams[i]
		}
	}
	return access.Upstream{}
}

// home returns the upstreams that are the registry itself.
func (r *registry) home() upstream.Pool {
	var home upstream.Pool
	for i, u := range r.upstreams {
		if u.Home {
			home = append(home, r.pool[i])
		}
	}
	return home
}

// clientAuth returns who answers the challenges of rc.
func clientAuth(rc config.Registry) access.ClientAuth {
	switch rc.ClientAuth {
	case "relay":
		return access.ByClient
	case "auto":
		return access.ByEither
	}
	return access.ByDaemon
}

// clientAuthFor returns who answers the challenges for the client of a request. A client is asked for
// a login of its own only if no other host can read it on the way.
func (r *registry) clientAuthFor(req *http.Request) access.ClientAuth {
	return protectedAuth(r.clientAuth, req)
}

func protectedAuth(a access.ClientAuth, r *http.Request) access.ClientAuth {
	if v := visitor.From(r.Context()); v != nil && v.User != "" {
		return access.ByDaemon // its login is for the site
	}
	if a == access.ByEither && !protected(r) {
		return access.ByDaemon
	}
	return a
}

// protected reports whether a request came over loopback or TLS. One of the site that came through a
// reverse proxy did if the proxy says so.
func protected(r *http.Request) bool {
	if access.IsSite(r.Context()) {
		return forwarded.Scheme(r) == "https"
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	return r.TLS != nil || err == nil && from.Addr().Unmap().IsLoopback()
}

// isHome reports whether an upstream of rc is the registry itself and not a mirror of it: it
// has the registry's host, or is the only one that there is and has neither a prefix nor "ns+",
// which only a mirror needs.
func isHome(rc config.Registry, u config.Upstream) bool {
	if len(rc.Upstreams) == 1 && u.Prefix == "" && !u.Namespaced {
		return true
	}
	return credential.IsFor(u.URL, rc.Name)
}

// make makes the registry that rc configures.
func (r *routes) make(rc config.Registry) (*registry, error) {
	reg := &registry{clientAuth: clientAuth(rc), probe: rc.Named, parallel: rc.Parallel}
	for _, u := range rc.Upstreams {
		reached := rc
		reached.Cert, reached.Key = r.certificate(rc, u)
		adopted := r.adopted(rc)
		if adopted.PlainHTTP {
			u = config.NewUpstream(&url.URL{Scheme: "http", Host: u.URL.Host})
		}
		settings := upstream.Config{
			URL:       u.URL,
			Prefix:    u.Prefix,
			Namespace: namespace(rc, u),
			Optional:  u.Optional,
			Registry:  reached,
			Adopted:   adopted.Adopted,
			Forward:   r.config.Forward,
			UserAgent: "sidemirror/" + r.config.Version,
			Changed:   func(err error) { r.say(rc.Name, u.Label(), err) },
			Observer:  r.config.Observer,

			SkipChanged: func(err error) { r.saySkipped(rc.Name, u.Label(), err) },
		}
		up, err := upstream.New(settings)
		if err != nil && (adopted.CA != nil || adopted.Clients != nil) {
			// The configuration is as good as without them.
			r.config.Log.WithError(err).WithField("registry", rc.Name).Warn("the engines' certificates cannot be used")
			settings.Adopted = upstream.Adopted{}
			up, err = upstream.New(settings)
		}
		if err != nil {
			reg.pool.Close()
			return nil, fmt.Errorf("registry %q: %w", rc.Name, err)
		}
		reg.add(up, u, isHome(rc, u))
	}
	return reg, nil
}

// namespace returns the name by which an upstream that mirrors several registries knows rc.
func namespace(rc config.Registry, u config.Upstream) string {
	if u.Namespaced {
		return rc.Name
	}
	return ""
}

// adopted returns how the engines reach a registry whose configuration does not say how it is reached.
func (r *routes) adopted(rc config.Registry) Adopted {
	if rc.Explicit {
		return Adopted{}
	}
	return r.config.Adopted[rc.Name]
}

// certificate returns the client certificate for an upstream of rc. That of rc is for the
// registry itself. A mirror gets the one that the configuration has for the mirror's own host,
// if it has a table of that name.
func (r *routes) certificate(rc config.Registry, u config.Upstream) (cert, key string) {
	if isHome(rc, u) {
		return rc.Cert, rc.Key
	}
	for _, other := range r.config.Registries {
		if other.Name != config.Wildcard && credential.IsFor(u.URL, other.Name) {
			return other.Cert, other.Key
		}
	}
	return "", ""
}

// at returns the upstream that a login stored under the key of host and namespace is for: the
// one whose own path is in that namespace or the other way round, the longest first; nil if no
// upstream is there.
func (r *routes) at(host, namespace string) *upstream.Upstream {
	var found *upstream.Upstream
	longest := -1
	for _, reg := range r.registries {
		for i, u := range reg.upstreams {
			_, path := credential.KeyOf(u.URL)
			if credential.IsFor(u.URL, host) && (within(namespace, path) || within(path, namespace)) && len(path) > longest {
				found, longest = reg.pool[i], len(path)
			}
		}
	}
	if found == nil && r.registries[host] == nil {
		// The login will make it known.
		if reg := r.withoutTable(host); reg != nil {
			return reg.pool[0]
		}
	}
	return found
}

// within reports whether a path is namespace or in it.
func within(path, namespace string) bool {
	rest, ok := strings.CutPrefix(path, namespace)
	return ok && (namespace == "" || rest == "" || rest[0] == '/')
}

// hostsOf returns the keys of the upstreams of the registry called name.
func (r *routes) hostsOf(name string) []string {
	reg := r.registries[name]
	if reg == nil {
		return nil
	}
	var hosts []string
	for _, u := range reg.upstreams {
		host, _ := credential.KeyOf(u.URL)
		hosts = append(hosts, host)
	}
	return hosts
}
