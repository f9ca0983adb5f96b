// Package upstream fetches from where a registry's content is: it keeps one HTTP
// client for each upstream, follows redirects with a client that holds no
// credentials, and remembers which upstreams answer and which ask us to wait.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// bodyTimeout is how long a body may bring nothing.
const bodyTimeout = 30 * time.Second

// Config says what an upstream is and how it is reached.
type Config struct {
	// URL is the upstream: http or https, with or without a path before /v2/.
	URL *url.URL

	// Registry is the registry that the upstream belongs to. Its CA, Cert, Key, Realms and
	// timeouts say how the upstream is reached.
	Registry config.Registry

	// Unconfigured says that nobody named this upstream in a configuration: it must
	// then be in public address space.
	Unconfigured bool

	UserAgent string

	// Changed, if not nil, is told when the upstream stops to be reachable, with the
	// reason, and with nil when it is again.
	Changed func(err error)

	resolver *net.Resolver // for tests
}

// Upstream is one place that content is fetched from.
type Upstream struct {
	url       *url.URL
	name      string
	userAgent string

	base     *http.Transport // to the upstream itself
	realm    *http.Transport // to a token server on another host
	redirect *http.Transport // to wherever it redirects: checked, and without client certificate
	auth     *auth.Transport

	private atomic.Bool // it is at a loopback or private address
	health  health
	limits  limits
}

// New makes an upstream. It dials nothing; it fails where a certificate cannot be
// read.
func New(c Config) (*Upstream, error) {
	u := &Upstream{url: c.URL, name: strings.TrimSuffix(c.URL.Redacted(), "/"), userAgent: c.UserAgent, health: health{changed: c.Changed}}
	u.private.Store(isPrivateLiteral(c.URL.Hostname()))
	env := httpproxy.FromEnvironment()

	roots, err := loadRoots(c.Registry.CA)
	if err != nil {
		return nil, err
	}
	clients, err := loadClient(c.Registry.Cert, c.Registry.Key)
	if err != nil {
		return nil, err
	}
	d := dialer{Config: c, proxies: proxyAddresses(env), upstream: u}
	u.base = newTransport(c, env, tlsConfig(roots, clients), d.toUpstream)
	u.realm = newTransport(c, env, tlsConfig(roots, nil), d.toRealm)
	u.redirect = newTransport(c, env, tlsConfig(roots, nil), d.toRedirect)
	u.auth = &auth.Transport{
		Base:      u.base,
		Realm:     roundTripper(u.toRealm),
		Realms:    auth.RealmPolicy{Upstream: c.URL, Allowed: c.Registry.Realms},
		UserAgent: c.UserAgent,
	}
	return u, nil
}

// Identity is in whose name an upstream is asked.
type Identity struct {
	// Access, if not nil, is on whose behalf sidemirror answers challenges. If it is nil the
	// client answers them, with an Authorization of its own.
	Access        *auth.Access
	Authorization credential.Secret
}

// Request is what is asked of an upstream.
type Request struct {
	Method string // GET or HEAD
	Path   string // "/v2/library/alpine/manifests/3.20"
	Query  url.Values
	Header http.Header // Accept, Range, If-Range

	// Patient means that the client has no other way to the content: an upstream that was
	// out of reach a moment ago is tried all the same.
	Patient bool

	Identity
}

// identity tells callers apart for the upstream's limits.
func (r Request) identity() string {
	if r.Access == nil {
		return auth.Fingerprint(r.Authorization.Reveal())
	}
	return r.Access.Credential.Generation
}

// Do asks the upstream and follows its redirects. The answer's body fails if it
// brings nothing for 30 s. An answer of whatever status is no error, but for a
// redirect that cannot be followed and for 429; nothing is asked while an earlier
// 429's Retry-After lasts. Errors are an [*oci.Error].
func (u *Upstream) Do(ctx context.Context, r Request) (*http.Response, error) {
	if wait := u.limits.held(r.identity()); wait > 0 {
		return nil, u.tooMany(wait)
	}
	ctx, cancel := context.WithCancel(ctx)
	resp, err := u.roundTrip(ctx, r)
	if err == nil {
		u.limits.note(r.identity(), resp)
		u.health.answered(resp.StatusCode)
		resp, err = u.settle(ctx, r, resp)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = newBody(resp.Body, cancel)
	return resp, nil
}

func (u *Upstream) roundTrip(ctx context.Context, r Request) (*http.Response, error) {
	target := auth.Join(u.url, r.Path)
	target.RawQuery = r.Query.Encode()
	req := newRequest(ctx, r.Method, target, r.Header, u.userAgent)
	if r.Access == nil && !r.Authorization.IsZero() {
		req.Header.Set("Authorization", r.Authorization.Reveal())
	}
	if u.private.Load() {
		req.Header.Set("Via", Via)
	}
	if r.Access != nil {
		req = req.WithContext(auth.WithAccess(ctx, *r.Access))
	}
	resp, err := u.auth.RoundTrip(req)
	if err != nil {
		return nil, u.explain(ctx, u.url, err, true)
	}
	return resp, nil
}

// settle follows resp if it redirects and turns a 429 into an error.
func (u *Upstream) settle(ctx context.Context, r Request, resp *http.Response) (*http.Response, error) {
	resp, err := u.follow(ctx, r, resp)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusTooManyRequests {
		wait := auth.RetryAfter(resp.Header, time.Now())
		drain(resp)
		return nil, u.tooMany(wait)
	}
	return resp, nil
}

func (u *Upstream) tooMany(wait time.Duration) error {
	return &oci.Error{Code: oci.TooManyRequests, RetryAfter: wait, Message: u.url.Host + " answers that it is asked too often (429)"}
}

// explain makes a transport's error into one that says what happened, to whom, and
// holds nothing secret. down says that it counts against the upstream's health.
func (u *Upstream) explain(ctx context.Context, target *url.URL, err error, down bool) error {
	if e, ok := errors.AsType[*oci.Error](err); ok {
		if e.Code == oci.Unavailable && e.Err != nil && down {
			u.health.failed(e) // no token server, no upstream: let nobody wait for it again
		}
		return e
	}
	if ctx.Err() != nil { // the client went away, or its deadline passed
		e := &oci.Error{Code: oci.Unavailable, Status: http.StatusGatewayTimeout, Message: target.Host + " did not answer in time", Err: ctx.Err()}
		if down && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			u.health.failed(e)
		}
		return e
	}
	e := &oci.Error{Code: oci.Unavailable, Message: fmt.Sprintf("%s cannot be reached: %s", target.Host, reason(err)), Err: auth.Redact(err)}
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() {
		e.Status = http.StatusGatewayTimeout
		e.Message = target.Host + " did not answer in time"
	}
	if down {
		u.health.failed(e)
	}
	return e
}

// toRealm is the way to a token server: the upstream's own client where it is the
// upstream itself, and one that shows no client certificate elsewhere.
func (u *Upstream) toRealm(req *http.Request) (*http.Response, error) {
	if sameOrigin(req.URL, u.url) {
		return u.base.RoundTrip(req)
	}
	return u.realm.RoundTrip(req)
}

// Relay asks the upstream's token server on behalf of a client, see
// [auth.Transport.Relay].
func (u *Upstream) Relay(ctx context.Context, in auth.TokenRequest) (*auth.Relayed, error) {
	return u.auth.Relay(ctx, in)
}

// RelayChallenge rewrites an upstream's challenge, see [auth.Transport.RelayChallenge].
func (u *Upstream) RelayChallenge(resp *http.Response, realm, repository string) string {
	return u.auth.RelayChallenge(resp, realm, repository)
}

// Name returns the upstream's URL, by which records and grants tell upstreams apart.
func (u *Upstream) Name() string { return u.name }

// Host gives the upstream's host and port, for messages.
func (u *Upstream) Host() string { return u.url.Host }

// RateLimits gives what the upstream last said of its limits, by the generation of
// the credential; "" is the anonymous one.
func (u *Upstream) RateLimits() map[string]RateLimit { return u.limits.all() }

// Close ends token exchanges under way and drops idle connections. Answers that are
// being read go on.
func (u *Upstream) Close() {
	u.auth.Close()
	u.base.CloseIdleConnections()
	u.realm.CloseIdleConnections()
	u.redirect.CloseIdleConnections()
}
