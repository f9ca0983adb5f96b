package proxy

import (
	"net"
	"net/http"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/access"
	"github.com/sidemirror/sidemirror/proxy/forwarded"
)

// asReached returns r with the host and the scheme that its client has used, which differ if a request
// of the site came through a reverse proxy.
func (p *Proxy) asReached(r *http.Request) *http.Request {
	if !access.IsSite(r.Context()) {
		return r
	}
	client, _ := forwarded.Of(r, p.trustedProxies) // an unknown address is refused later
	reached := r.WithContext(forwarded.WithClient(r.Context(), client))
	reached.Host = client.Host
	return reached
}

// names reports whether the Host header of r is a name of sidemirror's, at the listener that it came in
// at.
func (p *Proxy) names(r *http.Request) bool {
	if access.IsSite(r.Context()) {
		return p.routes.siteHost(r.Host)
	}
	return p.routes.ownHost(r.Host) || access.GuestHost(r.Context(), r.Host)
}

// siteHost reports whether a Host header has a name of the site: one that stands for a registry.
func (r *routes) siteHost(host string) bool { return r.hosts[bareHost(host)] != "" }

// onSite reports whether a registry is served on the site: one that has a host name of its own there.
// The others may be for this host alone.
func (r *routes) onSite(registry string) bool {
	for _, name := range r.hosts {
		if name == registry {
			return true
		}
	}
	return false
}

// bareHost returns a Host header without its port, a final dot and brackets, in lower case.
func bareHost(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}
