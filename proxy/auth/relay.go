package auth

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

const (
	relayService = "sidemirror"
	maxForm      = 64 << 10 // bytes of a POST to sidemirror's token endpoint

	// challengeAge is how long what an upstream said of its challenge is taken to hold.
	challengeAge = 5 * time.Minute
)

// Relayed is a token server's response, for the client of relay mode.
type Relayed struct {
	Status      int
	ContentType string
	RetryAfter  time.Duration
	Body        []byte // at most 64 KiB
}

// TokenRequest is a client's request to the token endpoint of relay mode.
type TokenRequest struct {
	Authorization credential.Secret // the client's header as it came; zero if none
	Scopes        []string          // completed
	Query         url.Values        // of a GET: its other parameters
	Form          url.Values        // of a POST; nil for a GET
}

// Relay sends a client's token request to the upstream's token server: with the
// client's own Authorization, and with the realm and the service of the upstream's own
// challenge. The realm must pass the same policy as for the daemon's credentials.
func (t *Transport) Relay(ctx context.Context, in TokenRequest) (*Relayed, error) {
	known, err := t.probe(ctx)
	if err != nil {
		return nil, err
	}
	realm, err := t.Realms.Check(known.Params["realm"])
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	req := in.upstream(realm, known.Params["service"])
	if !in.Authorization.IsZero() {
		req.Header.Set("Authorization", in.Authorization.Reveal())
	}
	resp, err := t.sendToRealm(ctx, req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return readRelayed(realm, resp)
}

// upstream returns the request to the realm. In addition to scope and service it passes
// on the parameters that the token specification knows, and no others.
func (in TokenRequest) upstream(realm *url.URL, service string) *http.Request {
	if in.Form == nil {
		u := *realm
		q := u.Query()
		fill(q, in.Query, "account", "client_id", "offline_token")
		setNonEmpty(q, "service", service)
		q["scope"] = in.Scopes
		u.RawQuery = q.Encode()
		return &http.Request{Method: http.MethodGet, URL: &u, Host: u.Host, Header: http.Header{}}
	}
	form := url.Values{}
	fill(form, in.Form, "grant_type", "client_id", "access_type", "username", "password", "refresh_token")
	setNonEmpty(form, "service", service)
	setNonEmpty(form, "scope", strings.Join(in.Scopes, " "))
	return postForm(realm, form)
}

func fill(to, from url.Values, names ...string) {
	for _, n := range names {
		if v := from.Get(n); v != "" {
			to.Set(n, v)
		}
	}
}

func setNonEmpty(to url.Values, name, value string) {
	if value != "" {
		to.Set(name, value)
	}
}

func readRelayed(realm *url.URL, resp *http.Response) (*Relayed, error) {
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return nil, realmStatus(realm, resp)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenBody+1))
	if err != nil || len(body) > maxTokenBody {
		return nil, &oci.Error{Code: oci.Unavailable, Message: "the token server " + realm.Host + " sent no complete response of at most 64 KiB"}
	}
	return &Relayed{
		Status:      resp.StatusCode,
		ContentType: resp.Header.Get("Content-Type"),
		RetryAfter:  RetryAfter(resp.Header, time.Now()),
		Body:        body,
	}, nil
}

// probe returns the upstream's Bearer challenge: the one seen lately, or that of /v2/.
func (t *Transport) probe(ctx context.Context) (*remembered, error) {
	if known := t.challenge.Load(); known != nil && time.Since(known.at) < challengeAge && known.Scheme == "bearer" {
		return known, nil
	}
	known, err := t.askChallenge(ctx)
	if err != nil {
		return nil, err
	}
	if known == nil || known.Scheme != "bearer" {
		return nil, &oci.Error{Code: oci.NotFound, Message: t.Realms.Upstream.Host + " asks for no token"}
	}
	return known, nil
}

// askChallenge asks /v2/ without authorization and returns the challenge of its 401,
// nil if it has none.
func (t *Transport) askChallenge(ctx context.Context) (*remembered, error) {
	u := Join(t.Realms.Upstream, "/v2/")
	req := (&http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{}}).WithContext(ctx)
	if t.UserAgent != "" {
		req.Header.Set("User-Agent", t.UserAgent)
	}
	resp, err := t.Base.RoundTrip(req)
	if err != nil {
		return nil, &oci.Error{Code: oci.Unavailable, Message: t.Realms.Upstream.Host + " could not be asked for its challenge", Err: Redact(err)}
	}
	defer discard(resp)
	if resp.StatusCode != http.StatusUnauthorized {
		return nil, nil
	}
	return t.learn(resp)
}

// Join returns the URL of a path (with its leading slash) below base.
// [url.URL.JoinPath] would clean the path, and return a relative one if base has none.
func Join(base *url.URL, path string) *url.URL {
	u := *base
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/")+path, ""
	return &u
}

// RelayChallenge rewrites the challenge of an upstream's 401 for a client of relay
// mode. Bearer becomes one with realm, sidemirror's own token endpoint, and the scope of
// the repository by the name that the client knows it by. Basic stays Basic. It returns
// the value for WWW-Authenticate, empty if the upstream's challenge is neither or is
// malformed.
func (t *Transport) RelayChallenge(resp *http.Response, realm, repository string) string {
	known, err := t.learn(resp)
	if err != nil || known == nil {
		return ""
	}
	if known.Scheme == "basic" {
		return fmt.Sprintf("Basic realm=%q", relayService)
	}
	challenge := fmt.Sprintf("Bearer realm=%q,service=%q", realm, relayService)
	if scope := PullScope(repository); scope != "" {
		challenge += fmt.Sprintf(",scope=%q", scope)
	}
	return challenge
}

// ReadForm reads the form of a POST to sidemirror's token endpoint, 64 KiB at most.
func ReadForm(r *http.Request) (url.Values, error) {
	var body bytes.Buffer
	if _, err := io.Copy(&body, io.LimitReader(r.Body, maxForm+1)); err != nil {
		return nil, scopeError("the form broke off")
	}
	if body.Len() > maxForm {
		return nil, scopeError("the form is longer than %d bytes", maxForm)
	}
	form, err := url.ParseQuery(body.String())
	if err != nil {
		return nil, scopeError("the form cannot be parsed")
	}
	return form, nil
}
