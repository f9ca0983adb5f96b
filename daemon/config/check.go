package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/sidemirror/sidemirror/internal/secret"
)

// check compares the values with each other.
func (l *loader) check() {
	if len(l.c.Listen) == 0 {
		l.complain("listen", -1, "the list is empty", `write ["127.0.0.1:305"], or remove the key`)
	}
	if (l.c.Credentials.Plugins == "") != (l.c.Credentials.PluginDir == "") {
		l.complain("credentials.plugins", -1, "plugins and plugin_dir belong together", "set both, as the kubelet's two flags are, or neither")
	}
	l.checkGuests()
	l.checkShared()
	l.checkSite()
	for key, proxy := range map[string]secret.Secret{"outbound.http_proxy": l.c.Outbound.HTTPProxy, "outbound.https_proxy": l.c.Outbound.HTTPSProxy} {
		u, err := proxyURL(proxy.Reveal())
		if err != nil || u == nil {
			continue
		}
		if addr, loop := l.listensAt(u); loop {
			l.faults.add(fault{at: l.at(key, -1), text: fmt.Sprintf("%s: sidemirror itself listens there (%s)", key, addr), hint: "write the URL of a forward proxy", secret: true})
		}
	}
	hosts := make(map[string]string)
	for i := range l.c.Registries {
		r := &l.c.Registries[i]
		l.checkRegistry(r)
		for j, host := range r.Hosts {
			key := registryKey(r.Name, "hosts")
			if other, taken := hosts[host]; taken {
				l.complain(key, j, fmt.Sprintf("%q already stands for %s (%s)", host, other, l.c.origin(registryKey(other, "hosts"))), "remove it from one of the two registries")
				continue
			}
			hosts[host] = r.Name
		}
	}
}

func (l *loader) checkRegistry(r *Registry) {
	upstreams := registryKey(r.Name, "upstreams")
	_, given := l.c.from[upstreams]
	r.Explicit = given || r.CA != "" || r.Cert != ""
	switch _, enabled := l.c.from[registryKey(r.Name, "enabled")]; {
	case r.Name != Wildcard && enabled:
		l.complain(registryKey(r.Name, "enabled"), -1, `only "*" can be turned on and off`, "remove the key")
	case r.Name == Wildcard && given:
		l.complain(upstreams, -1, `"*" stands for registries that are not named, and each is its own upstream`, "remove the key")
	case r.Name == Wildcard && len(r.Hosts) > 0:
		l.complain(registryKey(r.Name, "hosts"), -1, `a host name stands for one registry, and "*" stands for many`, "remove the key")
	case r.Name != Wildcard && len(r.Upstreams) == 0:
		l.complain(upstreams, -1, "the list is empty", fmt.Sprintf("remove the key to use %q", NewRegistry(r.Name).Upstreams[0].String()))
	case r.Cert != "" && r.Key == "":
		l.complain(registryKey(r.Name, "cert"), -1, "the client certificate has no key", "add key")
	case r.Key != "" && r.Cert == "":
		l.complain(registryKey(r.Name, "key"), -1, "the key has no client certificate", "add cert")
	}
	named := make(map[string]bool)
	for i, u := range r.Upstreams {
		if named[u.Name()] {
			l.complain(upstreams, i, fmt.Sprintf("%q occurs twice", u.Name()), "remove one")
		}
		named[u.Name()] = true
		if addr, loop := l.listensAt(u.URL); loop {
			l.complain(upstreams, i, fmt.Sprintf("sidemirror itself listens at %q (%s), so requests would go round in a circle", u.String(), addr), "write the URL of the registry")
		}
	}
}

// listensAt reports whether u is one of sidemirror's own addresses. It recognizes localhost, but
// no other name that resolves to one.
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

// complain reports a fault of a key, or of an element of its list. A key that is not set is
// reported at the beginning of the file: its default is only wrong together with another key.
func (l *loader) complain(key string, elem int, text, hint string) {
	l.faults.add(fault{at: l.at(key, elem), text: key + ": " + text, hint: hint})
}

// at returns where a key was set, or an element of its list.
func (l *loader) at(key string, elem int) origin {
	at := l.c.from[key]
	if v := l.values[key]; at.variable == "" {
		switch {
		case elem >= 0 && elem < len(v.elems):
			at.offset = v.elems[elem].offset
		case v.offset > 0:
			at.offset = v.offset
		}
	}
	return at
}

// origin returns where key was set, for people.
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
