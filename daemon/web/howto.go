package web

import (
	"html/template"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/forwarded"
)

// dockerHub is the registry whose images have short names.
const dockerHub = "docker.io"

// view is what the templates show.
type view struct {
	Info
	Lang   language
	Tag    string // of Lang, for the page's own lang attribute
	Style  template.CSS
	Script template.JS
	Words  words
	Live   *liveView // nil if the page does not show what happens
	Every  int       // seconds between two looks at what happens

	// Host names sidemirror in an image reference, URL in an engine's configuration.
	Host, URL string

	// Plain says that Docker would insist on TLS here, which is not served. Insecure says that other
	// clients need a flag to do without TLS.
	Plain, Insecure bool

	// Visitor says that the reader is at another host.
	Visitor bool

	// Own is the registry that Host stands for, if any. The prefix form does not work there.
	Own *config.Registry

	// Example is a registry other than Default, to show the prefix form.
	Example string

	// Hub means that names without a registry are those of Docker Hub here, Other that the page can
	// show how to pull from another registry.
	Hub, Other bool

	// Image is one that the commands of other clients pull.
	Image string
}

// How often the script asks for the live part, in seconds. It does not depend on what happens.
const (
	everyDetailed = 5
	everyCoarse   = 30
)

func (p *page) view(r *http.Request, lang language) view {
	info := p.info
	host, scheme, port := r.Host, "http", "80"
	if host == "" {
		host = info.Listen
	}
	if forwarded.Scheme(r) == "https" {
		scheme, port = "https", "443"
	}
	name := hostName(host)
	v := view{
		Info: info, Lang: lang, Tag: lang.tag(), Style: template.CSS(p.style), Script: template.JS(p.script),
		Words: vocabulary[lang], Every: everyCoarse, Host: host, URL: scheme + "://" + host,
	}
	if v.Visitor = info.Site != nil && info.Site(r); v.Visitor {
		v.Registries = onSite(info.Registries)
	} else if info.Live != nil {
		live, detailed := p.live(r)
		v.Live = new(newLiveView(live, detailed, v.Words))
		if detailed {
			v.Every = everyDetailed
		}
	}
	v.Insecure = scheme == "http"
	v.Plain = v.Insecure && !loopback(name)
	// Without a dot or a port, Docker takes the first component of a reference for a user of
	// Docker Hub (distribution/reference, splitDockerDomain).
	if !strings.ContainsAny(host, ".:") && name != "localhost" {
		v.Host = net.JoinHostPort(name, port)
	}
	for i, reg := range info.Registries {
		if slices.ContainsFunc(reg.Hosts, func(h string) bool { return strings.EqualFold(h, name) }) {
			v.Own = &info.Registries[i]
		}
		if reg.Name != info.Default && reg.Name != config.Wildcard && (v.Example == "" || reg.Name == "ghcr.io") {
			v.Example = reg.Name
		}
	}
	switch {
	case v.Own != nil:
		v.Hub = v.Own.Name == dockerHub
		v.Other = !v.Hub
	case len(info.Registries) > 0:
		v.Hub, v.Other = info.Default == dockerHub, v.Example != ""
	}
	switch {
	case v.Hub:
		v.Image = "library/redis:latest"
	case v.Own != nil:
		v.Image = "owner/image:tag"
	default:
		v.Image = v.Example + "/owner/image:tag"
	}
	return v
}

// onSite returns the registries that other hosts can pull from: those with a host name of their own.
func onSite(all []config.Registry) (list []config.Registry) {
	for _, reg := range all {
		if len(reg.Hosts) > 0 {
			list = append(list, reg)
		}
	}
	return list
}

// hostName returns host without its port and without the brackets of an IPv6 address.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

// loopback reports whether Docker uses plain HTTP for name by default, as it does for 127.0.0.0/8,
// ::1 and localhost.
func loopback(name string) bool {
	ip := net.ParseIP(name)
	return strings.EqualFold(name, "localhost") || ip != nil && ip.IsLoopback()
}
