package proxy

import (
	"net/http"
	"net/netip"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/observe"
	"github.com/sidemirror/sidemirror/proxy/peer"
	"github.com/sidemirror/sidemirror/proxy/shared"
	"github.com/sidemirror/sidemirror/proxy/transfer"
	"github.com/sidemirror/sidemirror/proxy/upstream"
	"github.com/sidemirror/sidemirror/proxy/visitor"
)

// Config is what a [Proxy] is made from. The daemon validates it: New fails only on what it has to
// read from disk (certificates).
type Config struct {
	// Registries are the registries served, each name once.
	Registries []config.Registry

	// Default names the registry of a request that names none: "docker.io".
	Default string

	// LoggedIn reports whether the daemon has a login for a registry. Without a table such a registry is
	// served at its own host, to trusted callers. If it is nil, none is.
	LoggedIn func(registry string) bool

	// Adopted says how the engines reach registries, by name. It counts for the registry's own host if
	// the configuration does not say how that is reached.
	Adopted map[string]Adopted

	// Forward is the forward proxy through which registries are reached; nil if there is none.
	Forward *upstream.ForwardProxy

	// Listen are the addresses that the proxy is served at.
	Listen []netip.AddrPort

	// OwnHosts are the host names, without ports, by which requests may address sidemirror in
	// addition to the loopback ones and the registries' Hosts.
	OwnHosts []string

	// Trust says which processes, asking over loopback, are served with the daemon's credentials. All
	// others are anonymous; if it is nil, all are.
	Trust *peer.Trust

	// Credentials, if nil, knows none.
	Credentials credential.Source

	// GuestLogins are the registries whose login is lent to guests, for images that anyone can have.
	GuestLogins []string

	// Site has the logins that are lent to visitors of the site, and the reverse proxies in front of it.
	Site config.Site

	// Visitors decides who may ask at the site, and how much. If it is nil, every visitor is refused.
	Visitors *visitor.Site

	// Page, if not nil, responds to "/".
	Page http.Handler

	// Cache, if nil, stores nothing.
	Cache *cache.Dir

	// Transfers are the transfers into Cache, which several proxies may share. If nil, the proxy has
	// transfers of its own.
	Transfers *transfer.Transfers

	// Shared is the store that this host shares with others; nil for none. Without a Cache it is not
	// used. The proxy does not close it.
	Shared *shared.Store

	// SharePrivate makes the proxy upload also what not everyone may read.
	SharePrivate bool

	// Prefetch makes the proxy fetch the layers that an engine will ask for next.
	Prefetch bool

	// Freshness bounds how old a response from the cache may be.
	Freshness Freshness

	// Version is sent upstream in the User-Agent.
	Version string

	// Log, if nil, discards.
	Log *logrus.Logger

	// AccessLog, if not nil, writes the line that each request leaves.
	AccessLog AccessLog

	// Observer, if not nil, is notified of what the proxy does.
	Observer observe.Observer

	// Notices, if not nil, returns what a person who pulls from a registry can do something about, such
	// as a login that was refused. It is called for each manifest that a trusted caller gets, and must
	// be quick.
	Notices func(registry string) []string

	// Tracer, if not nil, follows the requests.
	Tracer observe.Tracer
}

// Adopted is how the engines reach a registry.
type Adopted struct {
	upstream.Adopted

	// PlainHTTP says that the registry is asked by plain HTTP.
	PlainHTTP bool
}

// Freshness bounds how old a response from the cache may be.
type Freshness struct {
	// Timeout bounds the time for asking what a tag means if something is stored to fall back to.
	// 0: 5 s.
	Timeout time.Duration

	// TagTTL is for how long a tag is taken to mean what it meant last, without asking. 0: the
	// upstream is asked at each pull.
	TagTTL time.Duration

	// MaxStale is for how long stored content is served while the upstream is out of reach, fails
	// or asks for fewer requests. 0: not at all.
	MaxStale time.Duration
}
