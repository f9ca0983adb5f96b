package upstream

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"
)

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// dialer makes the connections of one upstream's clients, each under its own rule. The
// rules see the resolved address at the moment of connecting, so that neither a notation
// nor a name that changes its address gets past them.
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

// toUpstream connects to the upstream itself and records whether it is a private one.
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

// toRealm connects to a token server that the policy allows: it is configured or well
// known.
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

func isPrivateLiteral(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && classify(a) == private || host == "localhost"
}

// proxyAddresses returns the addresses of the proxies of the environment, which may be in
// private space.
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
