package daemon

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/daemon/listener"
	"github.com/sidemirror/sidemirror/daemon/state"
	"github.com/sidemirror/sidemirror/daemon/web"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy"
	"github.com/sidemirror/sidemirror/proxy/access"
	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/observe"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/peer"
	"github.com/sidemirror/sidemirror/proxy/shared"
	"github.com/sidemirror/sidemirror/proxy/transfer"
	"github.com/sidemirror/sidemirror/proxy/visitor"
)

// Login asks the upstream that a login stored under the key of registry and namespace is for,
// as c configures it, whether it accepts cred. The error is proxy.Proxy's: an *oci.Error if the
// upstream or its token server refused. version is sent in the User-Agent.
func Login(ctx context.Context, c *config.Config, registry, namespace string, cred credential.Credential, version string) error {
	found, _ := readHandedOver(c) // a user who may not read it logs in to registries that are reached in the usual way
	p, err := newProxy(c, c.Listen, proxyParts{version: version, found: found})
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Login(ctx, registry, namespace, cred)
}

// registryProxy is a proxy that reports what is wrong with its credentials.
type registryProxy struct {
	*proxy.Proxy
	logins   *logins
	outbound outbound

	shared        *shared.Store    // nil: nothing is shared with other hosts
	sharedMissing *problem.Problem // why, if the configuration names a store
}

// SharedProblems implements [sharing].
func (p *registryProxy) SharedProblems() []*problem.Problem {
	if p.sharedMissing != nil {
		return []*problem.Problem{p.sharedMissing}
	}
	return p.Proxy.SharedProblems()
}

// Outbound returns the forward proxy through which registries are reached, nil if there is none.
func (p *registryProxy) Outbound() *state.Outbound { return p.outbound.shown }

// Close implements service.
func (p *registryProxy) Close() {
	p.Proxy.Close()
	if p.shared != nil {
		p.shared.Close()
	}
	p.logins.close()
}

// proxyParts is what a proxy is made of in addition to its configuration. All but the version may be
// left out.
type proxyParts struct {
	version   string
	log       *logrus.Logger
	access    proxy.AccessLog
	observer  observe.Observer
	tracer    observe.Tracer // nil: no request is followed
	notices   func(registry string) []string
	trust     *peer.Trust // nil: no caller is trusted
	store     *cache.Dir  // nil: nothing is stored
	transfers *transfer.Transfers
	live      func() web.Live
	visitors  *visitor.Site // nil: none is admitted
	found     handover.Handover
}

// newProxy makes the proxy that c describes, for the addresses at.
func newProxy(c *config.Config, at []netip.AddrPort, of proxyParts) (*registryProxy, error) {
	logins := credentials(c, of.log)
	page := web.Info{
		Registries: c.Registries, Default: oci.DockerHub, Listen: listener.Reachable(at[0]).String(), Version: of.version,
		Trusted:    func(r *http.Request) bool { return peer.Trusted(r.Context(), of.trust) },
		Site:       func(r *http.Request) bool { return access.IsSite(r.Context()) },
		ShowImages: c.Page.ShowImages,
		Live:       of.live,
	}
	out := chooseOutbound(c, environmentProxy(), of.found.Proxy)
	if of.log != nil && out.shown != nil {
		of.log.WithFields(logrus.Fields{"http_proxy": out.shown.HTTPProxy, "https_proxy": out.shown.HTTPSProxy, "from": out.shown.From}).Info("registries are reached through a forward proxy")
	}
	settings := proxy.Config{
		Forward:     out.proxy,
		Registries:  c.Registries,
		Adopted:     adopted(of.found),
		Page:        web.Handler(page),
		Default:     oci.DockerHub,
		OwnHosts:    ownHosts(at),
		Trust:       of.trust,
		Credentials: logins.asSources(),
		GuestLogins: c.Guests.Logins,
		Site:        c.Site,
		Visitors:    of.visitors,
		LoggedIn:    logins.store.Has,
		Listen:      at,
		Cache:       of.store,
		Transfers:   of.transfers,
		Prefetch:    c.Cache.Prefetch,
		Freshness:   proxy.Freshness{Timeout: c.Cache.FreshnessTimeout, TagTTL: c.Cache.TagTTL, MaxStale: c.Cache.MaxStale},
		Version:     of.version,
		Log:         of.log,
		AccessLog:   of.access,
		Observer:    of.observer,
		Tracer:      of.tracer,
		Notices:     of.notices,
	}
	served := &registryProxy{logins: logins, outbound: out}
	if of.store != nil {
		served.shared, served.sharedMissing = openShared(c, out, of.log)
		settings.Shared, settings.SharePrivate = served.shared, c.Cache.Shared.Private
	}
	p, err := proxy.New(settings)
	if err != nil {
		logins.close()
		return nil, err
	}
	served.Proxy = p
	return served, nil
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
