package proxy

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// gate refuses what no engine sends, before anything else of the request is looked at: web
// pages, which a browser lets reach 127.0.0.1; host names that are not sidemirror's, by which
// DNS rebinding works; and bodies.
func (p *Proxy) gate(r *http.Request) error {
	if strings.HasPrefix(r.URL.Path, "/v2") && fromWebPage(r) {
		return &oci.Error{Code: oci.Denied, Message: "web pages may not use the registry API of sidemirror"}
	}
	if r.URL.Host != "" || r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		return &oci.Error{Code: oci.BadRequest, Message: "sidemirror is not a forward proxy: the request target must be a path"}
	}
	if r.Host == "" {
		return &oci.Error{Code: oci.BadRequest, Message: "the request names no Host"}
	}
	if !p.names(r) {
		return p.routes.foreignHost()
	}
	if r.Method != http.MethodPost && (r.ContentLength != 0 || len(r.TransferEncoding) > 0) && readOnly(r.Method) {
		return &oci.Error{Code: oci.BadRequest, Message: "a " + r.Method + " request must not have a body"}
	}
	for _, via := range r.Header.Values("Via") {
		if strings.Contains(via, upstream.Via) {
			return &oci.Error{Code: oci.Unavailable, Message: "an upstream of this registry leads back to sidemirror: correct its upstreams in the configuration"}
		}
	}
	return nil
}

func readOnly(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// fromWebPage reports whether a web page made the request. A browser says so itself:
// Sec-Fetch-Site is "none" for an address that a person typed, and anything else, or an
// Origin, is a page. Without them a Referer tells. One of sidemirror's own origin is what a
// Go client (crane, regctl, oras, skopeo, podman) sends when it follows a redirect of sidemirror.
func fromWebPage(r *http.Request) bool {
	if len(r.Header["Origin"]) > 0 {
		return true
	}
	for name, values := range r.Header {
		if strings.HasPrefix(name, "Sec-Fetch-") && r.Header.Get("Sec-Fetch-Site") != "none" || name == "Sec-Fetch-Site" && len(values) > 1 {
			return true
		}
	}
	for _, referer := range r.Header["Referer"] {
		u, err := url.Parse(referer)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || !strings.EqualFold(u.Host, r.Host) {
			return true
		}
	}
	return false
}

// ownHost reports whether a Host header names sidemirror: a loopback name or address, or a
// name from the configuration.
func (r *routes) ownHost(host string) bool {
	host = bareHost(host)
	if host == "localhost" || r.own[host] || r.hosts[host] != "" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// foreignHost returns the error for a Host that is not sidemirror's. If host names stand for
// registries, it lists those names, as the worker does. It lists no upstream and no other
// registry, since the caller may be a web page that rebinds its name.
func (r *routes) foreignHost() error {
	if len(r.hosts) == 0 {
		return &oci.Error{Code: oci.Denied, Message: "sidemirror does not serve this host name: use a loopback address, or have the administrator add the name to the hosts of a registry"}
	}
	return &oci.Error{Code: oci.NotFound, Message: "no registry is served under this name", Routes: r.hosts}
}
