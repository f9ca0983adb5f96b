package daemon

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/web"
	"github.com/sidemirror/sidemirror/proxy"
	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// Login asks the upstream that a login stored under the key of registry and namespace is for,
// as c configures it, whether it accepts cred. The error is proxy.Proxy's: an *oci.Error if the
// upstream or its token server refused. version is sent in the User-Agent.
func Login(ctx context.Context, c *config.Config, registry, namespace string, cred credential.Credential, version string) error {
	p, err := newProxy(c, c.Listen, version, nil, nil)
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Login(ctx, registry, namespace, cred)
}

// registryProxy is a proxy that can say what is wrong with its credentials.
type registryProxy struct {
	*proxy.Proxy
	sources []*toldSource
}

// Trouble implements troubled.
func (p *registryProxy) Trouble() string {
	var list []string
	for _, s := range p.sources {
		if text := s.trouble(); text != "" {
			list = append(list, text)
		}
	}
	return strings.Join(list, "; ")
}

// newProxy makes the proxy that c describes, listening at the addresses at. log may be
// nil, and so may kept, in which it keeps nothing.
func newProxy(c *config.Config, at []netip.AddrPort, version string, log *logrus.Logger, kept *cache.Dir) (*registryProxy, error) {
	sources := credentials(c, log)
	page := web.Info{Registries: c.Registries, Default: oci.DockerHub, Listen: reachable(at[0]).String(), Version: version}
	settings := proxy.Config{
		Registries:  c.Registries,
		Page:        web.Handler(page),
		Default:     oci.DockerHub,
		OwnHosts:    ownHosts(at),
		TrustedUIDs: c.Trust.UIDs,
		Credentials: asked(sources),
		Cache:       kept,
		Freshness:   proxy.Freshness{Timeout: c.Cache.FreshnessTimeout, TagTTL: c.Cache.TagTTL, MaxStale: c.Cache.MaxStale},
		Version:     version,
		Log:         log,
	}
	p, err := proxy.New(settings)
	if err != nil {
		return nil, err
	}
	return &registryProxy{p, sources}, nil
}

// ownHosts are the names that people call this host by, where others than its own
// processes may: addresses that are not loopback.
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

// everyName is the host's name and all its addresses. What cannot be found out is
// left out: requests under it are refused, not wrongly served.
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
