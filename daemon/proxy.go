package daemon

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/daemon/listener"
	"github.com/sidemirror/sidemirror/daemon/web"
	"github.com/sidemirror/sidemirror/proxy"
	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/peer"
	"github.com/sidemirror/sidemirror/proxy/transfer"
)

// Login asks the upstream that a login stored under the key of registry and namespace is for,
// as c configures it, whether it accepts cred. The error is proxy.Proxy's: an *oci.Error if the
// upstream or its token server refused. version is sent in the User-Agent.
func Login(ctx context.Context, c *config.Config, registry, namespace string, cred credential.Credential, version string) error {
	found, _ := readHandedOver(c) // a user who may not read it logs in to registries that are reached in the usual way
	p, err := newProxy(c, found, c.Listen, version, nil, nil, nil, nil, nil)
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Login(ctx, registry, namespace, cred)
}

// registryProxy is a proxy that reports what is wrong with its credentials.
type registryProxy struct {
	*proxy.Proxy
	logins *logins
}

// Close implements service.
func (p *registryProxy) Close() {
	p.Proxy.Close()
	p.logins.close()
}

// Trouble implements troubled.
func (p *registryProxy) Trouble() string {
	var list []string
	for _, what := range p.Problems() {
		list = append(list, what.Error()+" ("+what.Hint+")")
	}
	return strings.Join(list, "; ")
}

// newProxy makes the proxy that c describes, for the addresses at. log and access may be nil. If
// trust is nil, the proxy trusts no caller. If store is nil, it stores nothing.
func newProxy(c *config.Config, found handover.Handover, at []netip.AddrPort, version string, log *logrus.Logger, access proxy.AccessLog, trust *peer.Trust, store *cache.Dir, transfers *transfer.Transfers) (*registryProxy, error) {
	logins := credentials(c, log)
	page := web.Info{Registries: c.Registries, Default: oci.DockerHub, Listen: listener.Reachable(at[0]).String(), Version: version}
	settings := proxy.Config{
		Registries:  c.Registries,
		Adopted:     adopted(found),
		Page:        web.Handler(page),
		Default:     oci.DockerHub,
		OwnHosts:    ownHosts(at),
		Trust:       trust,
		Credentials: logins.asSources(),
		LoggedIn:    logins.store.Has,
		Listen:      at,
		Cache:       store,
		Transfers:   transfers,
		Prefetch:    c.Cache.Prefetch,
		Freshness:   proxy.Freshness{Timeout: c.Cache.FreshnessTimeout, TagTTL: c.Cache.TagTTL, MaxStale: c.Cache.MaxStale},
		Version:     version,
		Log:         log,
		AccessLog:   access,
	}
	p, err := proxy.New(settings)
	if err != nil {
		logins.close()
		return nil, err
	}
	return &registryProxy{p, logins}, nil
}

// ownHosts returns the names and addresses of this host by which other hosts reach it: those of
// addresses that are not loopback.
func ownHosts(at []netip.AddrPort) []string {
	var hosts []string
	for _, a := range at {
		switch {
		case a.Addr().IsLoopback():
		case !a.Addr().IsUnspecified():
			hosts = append(hosts, a.Addr().WithZone("").String())
		default:
			hosts = append(hosts, everyName()...)
		}
	}
	return hosts
}

// everyName returns the host's name and all its addresses. It leaves out what it cannot find out:
// requests with that name are refused.
func everyName() []string {
	var names []string
	if name, err := os.Hostname(); err == nil {
		names = append(names, strings.ToLower(name))
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			names = append(names, prefix.Addr().Unmap().WithZone("").String())
		}
	}
	return names
}
