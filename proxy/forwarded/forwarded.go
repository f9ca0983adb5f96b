// Package forwarded finds out who sent a request that came through reverse proxies.
//
// A reverse proxy adds the address of its own client to the end of X-Forwarded-For, or of Forwarded
// (RFC 7239). Everything in front of that is what the client claims. So the headers are read from
// their end, as long as a trusted proxy has written them, and they count for nothing if the
// connection does not come from one.
package forwarded

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// The reasons why [Of] does not know a client. A caller of an unknown address must be refused: the
// address of the proxy is not its own.
var (
	ErrUnnamed    = errors.New("the reverse proxy sent neither X-Forwarded-For nor Forwarded")
	ErrUnreadable = errors.New("X-Forwarded-For or Forwarded does not name the client's address")
	ErrConflict   = errors.New("X-Forwarded-For and Forwarded name different clients")
	ErrNoAddress  = errors.New("the connection has no address")
)

// Client is who sent a request, and how it reached the first trusted proxy or this process.
type Client struct {
	Addr   netip.Addr // without a zone; IPv4 is never in its IPv6 form
	Scheme string     // "http" or "https"
	Host   string     // as the Host header
}

// Of returns the client of r, given the addresses of trusted proxies. If the error is not nil, the
// client's Addr is not valid, and the rest is what is known.
func Of(r *http.Request, trusted []netip.Prefix) (Client, error) {
	c := Client{Scheme: "http", Host: r.Host}
	if r.TLS != nil {
		c.Scheme = "https"
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return c, ErrNoAddress
	}
	peer := plain(from.Addr())
	if !Contains(trusted, peer) {
		c.Addr = peer
		return c, nil
	}
	return c.behind(r.Header, trusted)
}

// behind returns the client that trusted proxies name in a header.
func (c Client) behind(h http.Header, trusted []netip.Prefix) (Client, error) {
	legacy := listed(h.Values("X-Forwarded-For"))
	standard, whole := parse(strings.Join(h.Values("Forwarded"), ","))
	c = c.reached(h, standard, trusted)
	var clients []netip.Addr
	for _, hops := range [][]string{legacy, nodes(standard)} {
		if len(hops) == 0 {
			continue
		}
		addr, ok := first(hops, trusted)
		if !ok {
			return c, ErrUnreadable
		}
		clients = append(clients, addr)
	}
	switch {
	case !whole:
		return c, ErrUnreadable
	case len(clients) == 0:
		return c, ErrUnnamed
	case len(clients) == 2 && clients[0] != clients[1]:
		// The proxy writes one of them, and the client has written the other.
		return c, ErrConflict
	}
	c.Addr = clients[0]
	return c, nil
}

// reached returns c with the scheme and the host that the proxies say the client has used.
func (c Client) reached(h http.Header, standard []element, trusted []netip.Prefix) Client {
	scheme, host := last(h.Values("X-Forwarded-Proto")), last(h.Values("X-Forwarded-Host"))
	if len(listed(h.Values("X-Forwarded-For"))) == 0 && len(standard) > 0 {
		e := standard[clientAt(nodes(standard), trusted)]
		scheme, host = e["proto"], e["host"]
	}
	if scheme = strings.ToLower(scheme); scheme == "http" || scheme == "https" {
		c.Scheme = scheme
	}
	if validHost(host) {
		c.Host = host
	}
	return c
}

// first returns the address of the client in a list of hops: the last one that is not a trusted proxy.
func first(hops []string, trusted []netip.Prefix) (netip.Addr, bool) {
	return address(hops[clientAt(hops, trusted)])
}

// clientAt returns the index of the client in a list of hops. If all are trusted proxies, it is the
// first one.
func clientAt(hops []string, trusted []netip.Prefix) int {
	for i := len(hops) - 1; i > 0; i-- {
		if addr, ok := address(hops[i]); !ok || !Contains(trusted, addr) {
			return i
		}
	}
	return 0
}

// Contains reports whether one of prefixes contains addr, which may be IPv4 in its IPv6 form.
func Contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	addr = plain(addr)
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// plain returns addr without a zone and not in an IPv6 form of IPv4.
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

// address returns the address of a hop, which may have a port.
func address(hop string) (netip.Addr, bool) {
	if withPort, err := netip.ParseAddrPort(hop); err == nil {
		return plain(withPort.Addr()), true
	}
	if inner, ok := strings.CutPrefix(hop, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); !ok || !strings.Contains(inner, ":") {
			return netip.Addr{}, false
		}
		hop = inner
	}
	addr, err := netip.ParseAddr(hop)
	return plain(addr), err == nil
}

// listed returns the elements of a header whose values are lists. An empty one stays: it is a hop
// without an address.
func listed(values []string) []string {
	if len(values) == 0 {
		return nil
	}
	all := strings.Split(strings.Join(values, ","), ",")
	for i := range all {
		all[i] = strings.Trim(all[i], " \t")
	}
	return all
}

// last returns the last element of a header, "" if there is none.
func last(values []string) string {
	all := listed(values)
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1]
}

// validHost reports whether text can be a Host header.
func validHost(text string) bool {
	const most = 253 + len(":65535")
	return text != "" && len(text) <= most && !strings.ContainsFunc(text, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune(".-_:[]", c))
	})
}
