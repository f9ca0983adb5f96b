package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// check looks at what the values mean together.
func (l *loader) check() {
	if len(l.c.Listen) == 0 {
		l.complain("listen", -1, `names no address; write ["127.0.0.1:305"]`)
	}
	hosts := make(map[string]string)
	for i := range l.c.Registries {
		r := &l.c.Registries[i]
		l.checkRegistry(r)
		for j, host := range r.Hosts {
			key := registryKey(r.Name, "hosts")
			if other, taken := hosts[host]; taken {
				l.complain(key, j, fmt.Sprintf("%q already means %s (%s); a host name can mean one registry only", host, other, l.c.origin(registryKey(other, "hosts"))))
				continue
			}
			hosts[host] = r.Name
		}
	}
}

func (l *loader) checkRegistry(r *Registry) {
	upstreams := registryKey(r.Name, "upstreams")
	_, given := l.c.from[upstreams]
	switch {
	case r.Name == Wildcard && given:
		l.complain(upstreams, -1, `"*" stands for registries that are not named, each its own upstream; leave the key out`)
	case r.Name == Wildcard && len(r.Hosts) > 0:
		l.complain(registryKey(r.Name, "hosts"), -1, `a host name means one registry, and "*" is none; leave the key out`)
	case r.Name != Wildcard && len(r.Upstreams) == 0:
		l.complain(upstreams, -1, fmt.Sprintf("names no upstream; leave the key out for %q", NewRegistry(r.Name).Upstreams[0]))
	case r.Cert != "" && r.Key == "":
		l.complain(registryKey(r.Name, "cert"), -1, "a client certificate needs its key: add key")
	case r.Key != "" && r.Cert == "":
		l.complain(registryKey(r.Name, "key"), -1, "a key needs its certificate: add cert")
	}
	for i, u := range r.Upstreams {
		if addr, loop := l.listensAt(u); loop {
			l.complain(upstreams, i, fmt.Sprintf("%q is where sidemirror itself listens (%s): requests would go round in a circle; name the registry", u, addr))
		}
	}
}

// listensAt reports whether u is one of our own addresses. A name that resolves to one
// is not seen here; localhost is.
func (l *loader) listensAt(u *url.URL) (netip.AddrPort, bool) {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	addr, err := netip.ParseAddr(u.Hostname())
	addr = addr.Unmap()
	local := u.Hostname() == "localhost" || strings.HasSuffix(u.Hostname(), ".localhost")
	for _, own := range l.c.Listen {
		if fmt.Sprint(own.Port()) != port {
			continue
		}
		loops := local && (own.Addr().IsLoopback() || own.Addr().IsUnspecified()) ||
			err == nil && (addr == own.Addr() || addr.IsUnspecified() && own.Addr().IsLoopback() || addr.IsLoopback() && own.Addr().IsUnspecified())
		if loops {
			return own, true
		}
	}
	return netip.AddrPort{}, false
}

// complain tells of a key, or of an element of its list. A key that is not set has
// its default, with which nothing is wrong but beside another: it is told at the
// file's beginning.
func (l *loader) complain(key string, elem int, text string) {
	at := l.c.from[key]
	if v := l.values[key]; at.variable == "" {
		switch {
		case elem >= 0 && elem < len(v.elems):
			at.offset = v.elems[elem].offset
		case v.offset > 0:
			at.offset = v.offset
		}
	}
	l.faults.add(problem{at: at, text: key + ": " + text})
}

// origin says where key was set, for people.
func (c *Config) origin(key string) string {
	at, set := c.from[key]
	switch {
	case !set:
		return "default"
	case at.variable != "":
		return at.variable
	}
	line, _ := c.source.position(at.offset)
	return fmt.Sprintf("%s:%d", c.source.path, line)
}
