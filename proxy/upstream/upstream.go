// Package upstream fetches content from a registry's upstreams. It has HTTP clients for
// each of them, follows redirects to other hosts with a client that holds no
// credentials, and remembers which upstreams can be reached and which asked to wait.
package upstream

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/observe"
)

const (
	// longestRealmBackoff is shorter than that of an upstream: a client that pulls by
	// prefix has no other way to a token.
	longestRealmBackoff = 10 * time.Second
)

// Config says what an upstream is and how it is reached.
type Config struct {
	// URL is the upstream: http or https, with or without a path before /v2/.
	URL *url.URL

	// Prefix comes before the name of each repository at the upstream; "" if nothing does.
	Prefix string

	// Namespace, if not empty, is sent in the query "ns" of each request: the upstream is a mirror of
	// several registries, and that is the name of the one that is meant.
	Namespace string

	// Optional means that a refusal of the upstream's does not count as the registry's, and neither
	// does its failure: another one of the pool is asked.
	Optional bool

	// Registry is the registry that the upstream belongs to. Its CA, Cert, Key, Realms and
	// timeouts say how the upstream is reached.
	Registry config.Registry

	// Adopted says how the engines reach the upstream. Leave it empty if the configuration says so.
	Adopted Adopted

	// Unconfigured says that no configuration names this upstream. It may be at a private address,
	// where the engine itself would ask it, but not at a loopback one. If it cannot be reached, it is
	// left alone for a minute.
	Unconfigured bool

	// Own are the addresses at which sidemirror listens, to which an unconfigured upstream must not
	// lead: the requests would go round in a circle.
	Own []netip.AddrPort

	// Forward is the forward proxy through which the upstream is reached; nil if there is none.
	Forward *ForwardProxy

	UserAgent string

	// Changed, if not nil, is called with the reason when the upstream can no longer be
	// reached, and with nil when it can be reached again.
	Changed func(err error)

	// SkipChanged, if not nil, is called with the reason, a [*SkippedError], when the upstream is
	// skipped for a while because another one of its pool is faster, and with nil when it no longer is.
	SkipChanged func(err error)

	// Observer, if not nil, is notified of the exchanges with the upstream.
	Observer observe.Observer

	// For tests; 0 and nil mean what the constants and the system say.
	resolver                   *net.Resolver
	bodyPause, headerOfSeveral time.Duration
	now                        func() time.Time
}

// Adopted is how the engines of the host reach a registry, by their own files.
type Adopted struct {
	// CA are files of certificates that are trusted in addition to the system's.
	CA []string

	// Clients are the client certificates.
	Clients []KeyPair

	// SkipVerify says that the certificate of the upstream itself is not verified.
	SkipVerify bool
}

// KeyPair names the files of a certificate and its key.
type KeyPair struct{ Cert, Key string }

// Upstream is one server that content is fetched from.
type Upstream struct {
	url       *url.URL // where /v2/ is, with the query that every request has
	prefix    string   // of the path below /v2/, with its slash; "" for none
	address   *url.URL // with the prefix, as logins know it
	name      string
	label     string
	optional  bool
	userAgent string

	certificate string // fingerprint of the client certificate

	own      *client     // to the upstream itself, with the client certificate if there is one
	plain    *client     // the same without the certificate; nil if there is none
	realm    connections // to a token server on another host
	redirect connections // to where it redirects: checked, and without client certificate

	bodyPause               time.Duration
	header, headerOfSeveral time.Duration // how long a response header may take
	encodings               encodings

	private      atomic.Bool // it is at a loopback or private address
	unconfigured bool

	observer    observe.Observer
	registry    string
	health      health
	realmHealth health // of a token server on another host
	pace        pace
	skipChanged func(err error) // may be nil
	now         func() time.Time
	holds       holds
	logins      logins

	life       context.Context // ended by Close
	end        context.CancelFunc
	background sync.WaitGroup
	mu         sync.Mutex
	probing    atomic.Bool
	closed     bool
}

// New makes an upstream. It dials nothing. It fails if a certificate cannot be read, or if the URL of
// an unconfigured upstream names a host that it must not be at.
func New(c Config) (*Upstream, error) {
	if c.Unconfigured {
		if err := checkHost(c.URL.Hostname(), private); err != nil {
			return nil, err
		}
	}
	if c.Observer == nil {
		c.Observer = observe.Nothing{}
	}
	if c.now == nil {
		c.now = time.Now
	}
	u := &Upstream{
		observer: c.Observer, registry: c.Registry.Name,
		url: c.base(), prefix: c.prefix(), address: c.described().Address(), name: c.described().Name(), label: c.label(),
		optional: c.Optional, skipChanged: c.SkipChanged, now: c.now, userAgent: c.UserAgent,
		health:      health{changed: c.Changed, longest: longestBackoff},
		realmHealth: health{longest: longestRealmBackoff},
		bodyPause:   cmp.Or(c.bodyPause, BodyPause),
		header:      c.Registry.HeaderTimeout, headerOfSeveral: cmp.Or(c.headerOfSeveral, headerOfSeveral),
	}
	u.life, u.end = context.WithCancel(context.Background())
	u.private.Store(isPrivateLiteral(c.URL.Hostname()))
	u.unconfigured = c.Unconfigured
	if c.Unconfigured {
		u.registry = c.URL.Host
		u.health.shortest = longestBackoff
	}
	cas, pairs := c.certificates()
	roots, err := loadRoots(cas)
	if err != nil {
		return nil, err
	}
	clients, err := loadClients(pairs)
	if err != nil {
		return nil, err
	}
	d := dialer{Config: c, upstream: u}
	u.own = u.newClient(c, newConnections(c, c.toUpstream(roots, clients), d.toUpstream), &u.health)
	if clients != nil {
		u.certificate = nameOf(clients)
		// An upstream that refuses callers without a certificate is not out of reach.
		u.plain = u.newClient(c, newConnections(c, c.toUpstream(roots, nil), d.toUpstream), &health{longest: longestBackoff})
	}
	u.realm = newConnections(c, tlsConfig(roots, nil), d.toRealm)
	u.realm.observer = observe.Nothing{} // it counts as an exchange of tokens
	u.redirect = newConnections(c, tlsConfig(roots, nil), d.toRedirect)
	u.redirect.redirected = true
	return u, nil
}

// certificates returns the files of authorities and of client certificates.
func (c Config) certificates() (ca []string, clients []KeyPair) {
	ca, clients = slices.Clone(c.Adopted.CA), slices.Clone(c.Adopted.Clients)
	if c.Registry.CA != "" {
		ca = append(ca, c.Registry.CA)
	}
	if c.Registry.Cert != "" || c.Registry.Key != "" {
		clients = append(clients, KeyPair{c.Registry.Cert, c.Registry.Key})
	}
	return ca, clients
}

// toUpstream returns how TLS to the upstream itself is made. Where it redirects, and at another
// host's token server, certificates are always verified.
func (c Config) toUpstream(roots *x509.CertPool, clients []tls.Certificate) *tls.Config {
	t := tlsConfig(roots, clients)
	t.InsecureSkipVerify = c.Adopted.SkipVerify //nolint:gosec // root has configured the engines so
	return t
}

// nameOf returns a name for client certificates that changes with them.
func nameOf(clients []tls.Certificate) string {
	sum := sha256.New()
	for _, c := range clients {
		sum.Write(c.Certificate[0])
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// client is one way to an upstream: what it learns, challenges and tokens, stays with it.
type client struct {
	connections
	watched watched
	auth    *auth.Transport
}

func (u *Upstream) newClient(c Config, by connections, h *health) *client {
	made := &client{connections: by, watched: watched{transport: by, health: h, patience: c.Registry.HeaderTimeout}}
	if h == &u.health {
		made.watched.suspect = u.suspect
	}
	made.auth = &auth.Transport{
		Base:      made.watched,
		Realm:     roundTripper(func(r *http.Request) (*http.Response, error) { return u.toRealm(made, r) }),
		Realms:    auth.RealmPolicy{Upstream: u.url, Allowed: c.Registry.Realms},
		UserAgent: c.UserAgent,
	}
	return made
}

// client returns the client by which the upstream is asked in that identity.
func (u *Upstream) client(id Identity) *client {
	if u.plain != nil && !id.Certificate {
		return u.plain
	}
	return u.own
}

// Certificate returns a name for the client certificate that is for the upstream, which changes
// with the certificate; "" if there is none.
func (u *Upstream) Certificate() string { return u.certificate }

// ask sends r to target, a URL of the upstream's own origin, with what it takes to be
// authorized there.
func (u *Upstream) ask(ctx context.Context, r Request, target *url.URL) (*http.Response, error) {
	req := newRequest(ctx, r.Method, target, r.Header, u.userAgent)
	if r.Access == nil && !r.Authorization.IsZero() {
		req.Header.Set("Authorization", r.Authorization.Reveal())
	}
	if u.private.Load() {
		req.Header.Set("Via", Via)
	}
	var access auth.Access
	if r.Access != nil {
		access = *r.Access
		if name := u.repositoryOf(target); name != "" {
			access.Repository = name
		}
		req = req.WithContext(auth.WithAccess(ctx, access))
	}
	resp, err := r.carried(target, func(own bool) (*http.Response, error) {
		if own {
			req = req.WithContext(onItsOwn(req.Context()))
		}
		return u.client(r.Identity).auth.RoundTrip(req)
	})
	u.logins.note(u.address, r.Access, access.Repository, resp, err)
	if err != nil {
		return nil, u.explain(ctx, u.url, err)
	}
	u.holds.note(r, resp)
	u.noteRateLimit(r, resp)
	return resp, nil
}

// settle follows resp if it redirects, makes 203 a 200, which differs in nothing that a
// client needs, and turns a 429 into an error.
func (u *Upstream) settle(ctx context.Context, r Request, resp *http.Response) (*http.Response, error) {
	resp, err := u.follow(ctx, r, resp)
	if err != nil {
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusNonAuthoritativeInfo:
		resp.StatusCode = http.StatusOK
	case http.StatusTooManyRequests:
		e := u.tooMany(auth.RetryAfter(resp.Header, time.Now()))
		r.censor(resp)
		e.ReadRefusal(resp)
		return nil, e
	}
	return resp, nil
}

// Relay asks the upstream's token server on behalf of a client, see
// [auth.Transport.Relay].
func (u *Upstream) Relay(ctx context.Context, in auth.TokenRequest, id Identity) (*auth.Relayed, error) {
	return u.client(id).auth.Relay(ctx, in)
}

// Learn remembers the challenge of a 401 to a client that answers challenges itself.
func (u *Upstream) Learn(resp *http.Response, id Identity) { u.client(id).auth.Learn(resp) }

// Challenged reports whether the upstream has sent a challenge to a client with that identity.
func (u *Upstream) Challenged(id Identity) bool { return u.client(id).auth.Challenged() }

// ClientChallenge returns the challenge for such a client, see [auth.Transport.ClientChallenge].
func (u *Upstream) ClientChallenge(id Identity, realm, repository string, named bool) string {
	return u.client(id).auth.ClientChallenge(realm, repository, named)
}

// Name returns the upstream's URL, by which records and grants tell upstreams apart.
func (u *Upstream) Name() string { return u.name }

// Host returns the upstream's host and port, for messages, and its path if it has one.
func (u *Upstream) Host() string { return u.label }

// Reachable reports whether the upstream could be reached when it was asked last.
func (u *Upstream) Reachable() bool { return !u.health.isDown() }

// Close ends token exchanges and probes under way and drops idle connections. Responses
// that are being read go on.
func (u *Upstream) Close() {
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	u.end()
	u.own.auth.Close()
	if u.plain != nil {
		u.plain.auth.Close()
	}
	u.background.Wait()
	u.own.closeIdle()
	if u.plain != nil {
		u.plain.closeIdle()
	}
	u.realm.closeIdle()
	u.redirect.closeIdle()
}
