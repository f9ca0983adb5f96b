package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// gate refuses what no engine sends, before anything of the request is looked at
// closely (security.md §6): web pages, which a browser lets reach 127.0.0.1, names
// that are not ours, by which DNS rebinding works, and bodies.
func (p *Proxy) gate(r *http.Request) error {
	if strings.HasPrefix(r.URL.Path, "/v2") && fromBrowser(r.Header) {
		return &oci.Error{Code: oci.Denied, Message: "web pages are not served here"}
	}
	if r.URL.Host != "" || r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		return &oci.Error{Code: oci.BadRequest, Message: "only requests for a path are answered: this is no forward proxy"}
	}
	if r.Host == "" {
		return &oci.Error{Code: oci.BadRequest, Message: "the request names no Host"}
	}
	if !p.routes.ownHost(r.Host) {
		return p.routes.foreignHost()
	}
	if r.Method != http.MethodPost && (r.ContentLength != 0 || len(r.TransferEncoding) > 0) && readOnly(r.Method) {
		return &oci.Error{Code: oci.BadRequest, Message: "a " + r.Method + " request must not have a body"}
	}
	for _, via := range r.Header.Values("Via") {
		if strings.Contains(via, upstream.Via) {
			return &oci.Error{Code: oci.Unavailable, Message: "an upstream of this registry leads back here: mend its upstreams in the configuration"}
		}
	}
	return nil
}

func readOnly(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// fromBrowser reports whether a web page made the request. "none" is a person who
// typed the address.
func fromBrowser(h http.Header) bool {
	site := h.Get("Sec-Fetch-Site")
	return len(h["Origin"]) > 0 || len(h["Referer"]) > 0 || (site != "" && site != "none")
}

// ownHost reports whether a Host header names us: a loopback name or address, or
// one that the configuration gives us.
func (r *routes) ownHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "localhost" || r.own[host] || r.hosts[host] != "" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// foreignHost is the error of a Host that is not ours. Where host names stand for
// registries, one that stands for none is told those that do, as the worker tells
// them; it is told no upstream and no other registry, since it may be a web page that
// rebinds its name. Where none do, it is just not for us.
func (r *routes) foreignHost() error {
	if len(r.hosts) == 0 {
		return &oci.Error{Code: oci.Denied, Message: "this is not a name of sidemirror's: ask by a loopback address, or have the administrator add it to a registry's hosts"}
	}
	return &oci.Error{Code: oci.NotFound, Message: "no registry is served under this name", Routes: r.hosts}
}
