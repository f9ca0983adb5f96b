package docker

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/splice"
)

// carried are the user's mirrors that a hosts.toml for docker.io has to name, since it overrides
// them.
func carried(mirrors []string, ours string) []splice.Mirror {
	var list []splice.Mirror
	for _, text := range mirrors {
		u, err := url.Parse(text)
		if text = strings.TrimSuffix(text, "/"); err != nil || u.Host == "" || u.User != nil || text == ours {
			continue
		}
		if !slices.ContainsFunc(list, func(m splice.Mirror) bool { return m.URL == text }) {
			list = append(list, splice.Mirror{URL: text})
		}
	}
	return list
}

// insecure reports whether a registry matches an entry of insecure-registries, a name or a network.
func (s settings) insecure(registry string) bool {
	host, _, _ := strings.Cut(registry, ":")
	addr, addrErr := netip.ParseAddr(host)
	return slices.ContainsFunc(s.Insecure, func(item string) bool {
		network, err := netip.ParsePrefix(item)
		return item == registry || err == nil && addrErr == nil && network.Contains(addr)
	})
}
