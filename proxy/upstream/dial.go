package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"
)

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// dialer makes the connections of one upstream's clients, each under its own rule
// (security.md §4). The rules look at the resolved address at the moment of
// connecting, so that neither a notation nor a name that changes its mind gets by.
type dialer struct {
	Config
	proxies  map[string]bool // host:port of the proxies in the environment
	upstream *Upstream
}

func (d dialer) dial(ctx context.Context, network, addr string, check func(netip.Addr) error) (net.Conn, error) {
	n := net.Dialer{Timeout: d.Registry.DialTimeout, KeepAlive: 30 * time.Second, Resolver: d.resolver}
	if !d.proxies[addr] {
		n.Control = func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			return check(ap.Addr())
		}
	}
	return n.DialContext(ctx, network, addr)
}

// toUpstream connects to the upstream itself and notes whether it is a private one.
func (d dialer) toUpstream(ctx context.Context, network, addr string) (net.Conn, error) {
	return d.dial(ctx, network, addr, func(a netip.Addr) error {
		if d.Unconfigured {
			return checkAddress(a, false)
		}
		if classify(a) == private {
			d.upstream.private.Store(true)
		}
		return nil
	})
}

// toRealm connects to a token server that the policy allows, which means that it is
// configured or well known.
func (d dialer) toRealm(ctx context.Context, network, addr string) (net.Conn, error) {
	return d.dial(ctx, network, addr, func(a netip.Addr) error {
		if d.Unconfigured {
			return checkAddress(a, false)
		}
		return nil
	})
}

// toRedirect connects to where an upstream redirects.
func (d dialer) toRedirect(ctx context.Context, network, addr string) (net.Conn, error) {
	return d.dial(ctx, network, addr, func(a netip.Addr) error {
		return checkAddress(a, d.upstream.private.Load())
	})
}

// blockedError says that an address may not be connected to.
type blockedError struct{ what string }

func (e *blockedError) Error() string {
	return "it is at " + e.what + ", where a registry must not lead us"
}

type class int

const (
	public class = iota
	private
	forbidden // link-local, metadata, multicast, unspecified: never
)

var (
	metadata = []netip.Addr{
		netip.MustParseAddr("169.254.169.254"),
		netip.MustParseAddr("fd00:ec2::254"),
		netip.MustParseAddr("100.100.100.200"),
	}
	sharedSpace = netip.MustParsePrefix("100.64.0.0/10")  // RFC 6598
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")      // RFC 1122
	benchmark   = netip.MustParsePrefix("198.18.0.0/15")  // RFC 2544
	reserved    = netip.MustParsePrefix("240.0.0.0/4")    // RFC 1112, broadcast with it
	nat64       = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052: an IPv4 address inside
	nat64Local  = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215
	sixToFour   = netip.MustParsePrefix("2002::/16")      // RFC 3056: an IPv4 address inside
	siteLocal   = netip.MustParsePrefix("fec0::/10")      // RFC 3879
)

// classify says in which part of the address space a is. IPv4 inside IPv6 counts as
// what it leads to.
func classify(a netip.Addr) class {
	a = a.Unmap().WithZone("")
	switch {
	case nat64.Contains(a):
		b := a.As16()
		return classify(netip.AddrFrom4([4]byte(b[12:16])))
	case sixToFour.Contains(a):
		b := a.As16()
		return classify(netip.AddrFrom4([4]byte(b[2:6])))
	}
	for _, m := range metadata {
		if a == m {
			return forbidden
		}
	}
	switch {
	case a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast(), thisNetwork.Contains(a), reserved.Contains(a):
		return forbidden
	case a.IsLoopback(), a.IsPrivate(), sharedSpace.Contains(a), benchmark.Contains(a), nat64Local.Contains(a), siteLocal.Contains(a):
		return private
	}
	return public
}

// checkAddress refuses what is not public, or with allowPrivate what is neither
// public nor private.
func checkAddress(a netip.Addr, allowPrivate bool) error {
	switch c := classify(a); {
	case c == forbidden:
		return &blockedError{"a link-local, metadata or reserved address"}
	case c == private && !allowPrivate:
		return &blockedError{"a loopback or private address"}
	}
	return nil
}

// checkHost refuses a redirect's host by its text alone: an address that would be
// refused when connected to, which a proxy between would hide, and the shorthands
// of addresses ("127.1", "2130706433", "0x7f000001") that other resolvers know.
func checkHost(host string, allowPrivate bool) error {
	if a, err := netip.ParseAddr(host); err == nil {
		return checkAddress(a, allowPrivate)
	}
	last := host[strings.LastIndexByte(strings.TrimSuffix(host, "."), '.')+1:]
	last = strings.ToLower(strings.TrimSuffix(last, "."))
	if hex, ok := strings.CutPrefix(last, "0x"); (ok && strings.Trim(hex, "0123456789abcdef") == "") || strings.Trim(last, "0123456789") == "" {
		return &blockedError{fmt.Sprintf("%q, which is no host name", host)}
	}
	return nil
}

func isPrivateLiteral(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && classify(a) == private || host == "localhost"
}

// proxyAddresses gives where the proxies of the environment are: those may well be
// in private space.
func proxyAddresses(env *httpproxy.Config) map[string]bool {
	all := map[string]bool{}
	for _, p := range []string{env.HTTPProxy, env.HTTPSProxy} {
		if p != "" && !strings.Contains(p, "://") {
			p = "http://" + p
		}
		u, err := url.Parse(p)
		if err != nil || u.Host == "" {
			continue
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
		}
		all[net.JoinHostPort(u.Hostname(), port)] = true
	}
	return all
}
