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
	Registry      string
	Scopes        []string   // completed
	Query         url.Values // of a GET: its other parameters
	Form          url.Values // of a POST; nil for a GET
}

// Relay sends a client's token request to the upstream's token server: with the client's own
// login, and with the realm and the service of the upstream's own challenge. The realm must pass
// the same policy as for the daemon's credentials. An upstream without a token server is asked
// whether it accepts the login, and the token is one of sidemirror's own that holds it.
//
// A login that is refused is not sent again for a while: engines try the same one by POST and by
// GET.
func (t *Transport) Relay(ctx context.Context, in TokenRequest) (*Relayed, error) {
	known, err := t.probe(ctx)
	if err != nil {
		return nil, err
	}
	client := in.login()
	key := client.key(in.Scopes)
	if refused := t.relayed.get(key); refused != nil {
		return refused, nil
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	var answer *Relayed
	if known != nil && known.Scheme == "bearer" {
		answer, err = t.relayToRealm(ctx, in, client, known)
	} else {
		answer, err = t.sealLogin(ctx, in, client, known)
	}
	if err == nil && (answer.Status == http.StatusUnauthorized || answer.Status == http.StatusForbidden) {
		t.relayed.put(key, answer)
	}
	return answer, err
}

// relayToRealm asks the upstream's token server. A password goes there by GET, as every token
// server knows it, and by POST only to one that does not: a client that tried both would have a
// wrong password refused twice.
func (t *Transport) relayToRealm(ctx context.Context, in TokenRequest, client clientLogin, known *remembered) (*Relayed, error) {
	realm, err := t.Realms.Check(known.Params["realm"])
	if err != nil {
		return nil, err
	}
	service := known.Params["service"]
	if client.password == "" {
		return t.relay(ctx, realm, in.asItCame(realm, service))
	}
	answer, err := t.relay(ctx, realm, in.get(realm, service, client))
	if err == nil && (answer.Status == http.StatusNotFound || answer.Status == http.StatusMethodNotAllowed) {
		return t.relay(ctx, realm, in.post(realm, service, client))
	}
	return answer, err
}

// relay sends one request to a token server.
func (t *Transport) relay(ctx context.Context, realm *url.URL, req *http.Request) (*Relayed, error) {
	resp, err := t.sendToRealm(ctx, req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := readRelayed(realm, resp)
	if err == nil && answer.Status == http.StatusOK {
		answer.Body = withBothNames(answer.Body)
	}
	return answer, err
}

// sealLogin returns a token of sidemirror's own that holds the client's login, if the upstream
// accepts it. known is the upstream's challenge, nil if /v2/ is open. A client without a login gets
// a token that holds none.
func (t *Transport) sealLogin(ctx context.Context, in TokenRequest, client clientLogin, known *remembered) (*Relayed, error) {
	if client.password == "" {
		return NoLogin(), nil
	}
	header := client.basic()
	if len(header) > maxSealedLogin {
		return nil, scopeError("the login is longer than %d bytes", maxSealedLogin)
	}
	if known != nil {
		resp, err := t.askBase(ctx, header)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		switch status := resp.StatusCode; {
		case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusTooManyRequests, status >= 500:
			return readRelayed(t.Realms.Upstream, resp)
		}
	}
	token := sealed{Registry: in.Registry, Upstream: upstreamKey(t.Realms.Upstream), Login: header}
	for _, scope := range in.Scopes {
		token.Repositories = append(token.Repositories, ScopeRepository(scope))
	}
	return sealedResponse(token), nil
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

// probe returns the upstream's challenge: the one seen lately, or that of /v2/; nil if it has none.
func (t *Transport) probe(ctx context.Context) (*remembered, error) {
	if known := t.challenge.Load(); known != nil && time.Since(known.at) < challengeAge {
		return known, nil
	}
	known, err := t.askChallenge(ctx)
	if err == nil && known == nil {
		known = t.challenge.Load() // of a repository, at a registry whose /v2/ is open
	}
	return known, err
}

// askChallenge asks /v2/ without authorization and returns the challenge of its 401,
// nil if it has none.
func (t *Transport) askChallenge(ctx context.Context) (*remembered, error) {
	resp, err := t.askBase(ctx, "")
	if err != nil {
		return nil, err
	}
	defer discard(resp)
	if resp.StatusCode != http.StatusUnauthorized {
		return nil, nil
	}
	return t.learn(resp)
}

// askBase asks /v2/ with that Authorization.
func (t *Transport) askBase(ctx context.Context, authorization string) (*http.Response, error) {
	u := Join(t.Realms.Upstream, "/v2/")
	req := (&http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{}}).WithContext(ctx)
	if t.UserAgent != "" {
		req.Header.Set("User-Agent", t.UserAgent)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := t.Base.RoundTrip(req)
	if err != nil {
		return nil, &oci.Error{Code: oci.Unavailable, Message: t.Realms.Upstream.Host + " could not be asked for its challenge", Err: Redact(err)}
	}
	return resp, nil
}

// Join returns the URL of a path (with its leading slash) below base.
// [url.URL.JoinPath] would clean the path, and return a relative one if base has none.
func Join(base *url.URL, path string) *url.URL {
	u := *base
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/")+path, ""
	return &u
}

// Learn remembers the challenge of an upstream's 401 to a client that answers challenges itself.
func (t *Transport) Learn(resp *http.Response) { _, _ = t.learn(resp) }

// Challenged reports whether the upstream has sent a challenge.
func (t *Transport) Challenged() bool { return t.challenge.Load() != nil }

// ClientChallenge returns the WWW-Authenticate that leads a client to sidemirror's own token
// endpoint, realm, if the upstream has sent a challenge; otherwise it is empty. It names the scope
// of the repository by the name that the client knows it by. Where the upstream wants the login
// itself and named is true, which says that each request of the client names the registry, the
// client may send it as it is (Basic).
func (t *Transport) ClientChallenge(realm, repository string, named bool) string {
	known := t.challenge.Load()
	switch {
	case known == nil:
		return ""
	case known.Scheme == "basic" && named:
		return fmt.Sprintf("Basic realm=%q", relayService)
	}
	return BearerChallenge(realm, repository)
}

// BearerChallenge returns the challenge for a token of sidemirror's token endpoint.
func BearerChallenge(realm, repository string) string {
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
