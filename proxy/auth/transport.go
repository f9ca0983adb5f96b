package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/observe"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

const (
	// maxAnswers bounds how often one request answers a refusal: once for the challenge,
	// and once more for a token that is refused although it is fresh.
	maxAnswers = 2

	// replacementRest is how long a replacement that is refused as well is left in use
	// before it is replaced again.
	replacementRest = time.Minute
)

// Transport is an http.RoundTripper towards one upstream that answers its
// challenges. A request whose context carries no [Access] passes through unchanged.
//
// It remembers the challenge and the tokens: a pull of ten layers costs one
// exchange. Tokens are stored by the generation of the credential and by scope, so
// that no caller gets a token of another identity.
//
// The zero value of every field except Base and Realms.Upstream is useful.
type Transport struct {
	Base      http.RoundTripper // to the upstream
	Realm     http.RoundTripper // to its token server; if nil, Base
	Realms    RealmPolicy
	UserAgent string // sent to the token server

	challenge atomic.Pointer[remembered]
	inquiry   inquiry
	tokens    tokens
	refusals  refusals
	relayed   relayedRefusals
	closing   sync.Once
}

// Access says on whose behalf a request is sent and what for.
type Access struct {
	Repository string // empty for the registry as a whole
	Credential credential.Credential

	// Anew means that no token from before is used: what it allows may be over.
	Anew bool
}

type accessKey struct{}

// WithAccess returns a context for a request whose challenges should be answered.
func WithAccess(ctx context.Context, a Access) context.Context {
	return context.WithValue(ctx, accessKey{}, a)
}

// remembered is a challenge and when it was seen.
type remembered struct {
	Challenge
	at time.Time
}

// sent is what a request carried in Authorization.
type sent struct {
	header credential.Secret
	token  *token // nil for Basic and for none
}

func (s sent) isBasic() bool { return !s.header.IsZero() && s.token == nil }

// RoundTrip sends req with the authorization that the upstream asks for: none,
// Basic, or a token. It answers a 401, a 400 or 403 to a token past half its life,
// and, if it has a login, a refusal that comes without a challenge. Then it returns
// the upstream's response, whatever its status. An error is an [*oci.Error] about the
// challenge, the token server or the credential, or an error of the base transport.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	access, ok := ctx.Value(accessKey{}).(Access)
	if !ok {
		return t.Base.RoundTrip(req)
	}
	resp, err := t.roundTrip(req, access)
	if !refused(resp, err) {
		return resp, err
	}
	// A helper's login may have been changed since it was asked.
	next, ok := access.Credential.Renewed(ctx)
	if !ok {
		return resp, err
	}
	if err == nil {
		discard(resp)
	}
	access.Credential = next
	return t.roundTrip(req.WithContext(WithAccess(ctx, access)), access)
}

// refused reports whether a request was refused for the credential that it was sent with.
func refused(resp *http.Response, err error) bool {
	if err != nil {
		return errors.Is(err, &oci.Error{Code: oci.Unauthorized}) || errors.Is(err, &oci.Error{Code: oci.Denied})
	}
	return resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden
}

func (t *Transport) roundTrip(req *http.Request, access Access) (*http.Response, error) {
	ctx := req.Context()
	started := time.Now()
	with, err := t.authorize(ctx, access, t.challenge.Load(), false)
	if err != nil {
		return nil, err
	}
	resp, err := t.send(req, with)
	for range maxAnswers {
		if err != nil {
			return nil, err
		}
		with, err = t.answer(ctx, access, with, resp, started)
		if err != nil {
			discard(resp)
			return nil, err
		}
		if with.header.IsZero() {
			return resp, nil
		}
		discard(resp)
		resp, err = t.send(req, with)
	}
	return resp, err
}

// answer returns what to send after resp, the response to a request sent with old.
// The zero value says that resp is the upstream's last word.
func (t *Transport) answer(ctx context.Context, a Access, old sent, resp *http.Response, started time.Time) (sent, error) {
	var ok bool
	var err error
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		ok, err = t.challenged(ctx, a, old, resp, started)
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound:
		if old.token != nil {
			ok = resp.StatusCode != http.StatusNotFound && old.token.old(time.Now())
		} else {
			ok = t.inquire(ctx, a, old)
		}
	}
	if err != nil || !ok {
		return sent{}, err
	}
	t.tokens.drop(t.key(a), old.token)
	return t.authorize(ctx, a, t.challenge.Load(), old.token != nil)
}

// challenged learns from a 401 and reports whether another request may do better.
func (t *Transport) challenged(ctx context.Context, a Access, old sent, resp *http.Response, started time.Time) (bool, error) {
	known, err := t.learn(resp)
	if err != nil {
		return false, err
	}
	switch {
	case known == nil:
		return t.inquire(ctx, a, old), nil
	case old.token != nil:
		return old.token.replaceable(known.Params["error"], started), nil
	}
	return known.Scheme != "basic" || !old.isBasic(), nil
}

// inquire asks /v2/ for the challenge after a refusal that came without one, and
// reports whether there is one: registries hide a private repository behind a 404.
// It does so only for a caller with a login who has not sent it yet.
func (t *Transport) inquire(ctx context.Context, a Access, old sent) bool {
	if a.Credential.IsZero() || !old.header.IsZero() {
		return false
	}
	return t.inquiry.once(ctx, func() bool {
		if t.challenge.Load() != nil {
			return true
		}
		known, err := t.askChallenge(ctx)
		return err == nil && known != nil
	})
}

// inquiry remembers that an upstream was asked for its challenge without a request
// that needs one. It is asked once in challengeAge, however many requests are refused.
type inquiry struct {
	mu    sync.Mutex
	slot  chan struct{} // holds a value while a request asks
	asked time.Time
	found bool
}

// once calls ask unless the answer is known.
func (q *inquiry) once(ctx context.Context, ask func() bool) bool {
	q.mu.Lock()
	if q.slot == nil {
		q.slot = make(chan struct{}, 1)
	}
	slot := q.slot
	q.mu.Unlock()
	select {
	case <-ctx.Done():
		return false
	case slot <- struct{}{}:
	}
	defer func() { <-slot }()
	if time.Since(q.asked) < challengeAge {
		return q.found
	}
	found := ask()
	if ctx.Err() == nil {
		q.asked, q.found = time.Now(), found
	}
	return found
}

// learn remembers the challenge of a 401. It returns nil if there is none that can be
// answered.
func (t *Transport) learn(resp *http.Response) (*remembered, error) {
	all, err := ParseChallenges(resp.Header)
	if err == nil {
		var c *Challenge
		if c, err = choose(all); err == nil && c != nil {
			r := &remembered{*c, time.Now()}
			t.challenge.Store(r)
			return r, nil
		}
	}
	if err != nil {
		return nil, &oci.Error{Code: oci.Untrusted, Message: t.Realms.Upstream.Host + ": " + err.Error()}
	}
	return nil, nil
}

// authorize returns what to send for a, given the challenge known, if any. replaces
// says that a token fetched for it replaces one that was refused.
func (t *Transport) authorize(ctx context.Context, a Access, known *remembered, replaces bool) (sent, error) {
	if known == nil {
		return sent{}, nil
	}
	if known.Scheme == "basic" {
		return basic(a.Credential), nil
	}
	tok, err := t.token(ctx, a, known, replaces)
	if err != nil {
		return sent{}, err
	}
	return sent{credential.NewSecret("Bearer " + tok.value.Reveal()), tok}, nil
}

func basic(c credential.Credential) sent {
	if c.IsZero() {
		return sent{}
	}
	secret := c.Password
	if secret.IsZero() {
		secret = c.IdentityToken
	}
	h := http.Request{Header: http.Header{}}
	h.SetBasicAuth(c.Username, secret.Reveal())
	return sent{header: credential.NewSecret(h.Header.Get("Authorization"))}
}

// token returns the token stored for a, or fetches one: one fetch at a time, however
// many requests wait for it.
func (t *Transport) token(ctx context.Context, a Access, known *remembered, replaces bool) (*token, error) {
	key := t.key(a)
	asking := observe.SpanOf(ctx)
	fetch := func(ctx context.Context) (tok *token, err error) {
		ctx, span := observe.Begin(observe.WithSpan(ctx, asking), observe.Step{Kind: observe.StepToken, Host: t.Realms.Upstream.Host})
		if span != nil {
			defer func() { span.End(observe.Result{Failed: err != nil}) }()
		}
		end, err := t.refusals.trial(ctx, a.Credential.Generation, key.scope)
		if err != nil {
			return nil, err
		}
		defer end()
		if err := t.heldBack(a); err != nil {
			return nil, err
		}
		realm, err := t.Realms.Check(known.Params["realm"])
		if err != nil {
			return nil, err
		}
		tok, err = t.fetch(ctx, exchange{realm, known.Params["service"], key.scope, a.Credential})
		if err == nil {
			tok.replacement = replaces
			t.refusals.prove(a.Credential.Generation)
		} else if refused(nil, err) {
			t.refusals.refuse(a.Credential.Generation, key.scope, oci.AsError(err).Message)
		}
		return tok, err
	}
	if a.Anew {
		ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
		defer cancel()
		return fetch(ctx)
	}
	return t.tokens.get(ctx, key, fetch)
}

// heldBack returns the error for a credential that was refused a short while ago.
func (t *Transport) heldBack(a Access) error {
	held, words := t.refusals.holds(a.Credential.Generation, PullScope(a.Repository))
	if !held {
		return nil
	}
	return &oci.Error{Code: oci.Unauthorized, Message: fmt.Sprintf("the credential for %s was refused a short while ago (%s) "+
		"and is not tried again yet; correct it with sidemirror login", t.Realms.Upstream.Host, words)}
}

func (t *Transport) key(a Access) tokenKey {
	return tokenKey{a.Credential.Generation, PullScope(a.Repository)}
}

func (t *Transport) send(req *http.Request, with sent) (*http.Response, error) {
	out := req.Clone(req.Context())
	if with.header.IsZero() {
		return t.Base.RoundTrip(out)
	}
	out.Header.Set("Authorization", with.header.Reveal())
	if with.isBasic() {
		return t.sendBasic(out)
	}
	resp, err := t.Base.RoundTrip(out)
	if err == nil && resp.StatusCode < 400 {
		with.token.accepted.Store(true)
	}
	return resp, err
}

// sendBasic sends a login and records whether it was accepted.
func (t *Transport) sendBasic(req *http.Request) (*http.Response, error) {
	a, _ := req.Context().Value(accessKey{}).(Access)
	generation, scope := a.Credential.Generation, PullScope(a.Repository)
	end, err := t.refusals.trial(req.Context(), generation, scope)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := t.heldBack(a); err != nil {
		return nil, err
	}
	resp, err := t.Base.RoundTrip(req)
	switch {
	case err != nil:
	case refused(resp, nil):
		censor(resp, a.Credential)
		t.refusals.refuse(generation, scope, refusalText(t.Realms.Upstream.Host, resp))
	case resp.StatusCode < 400:
		t.refusals.prove(generation)
	}
	return resp, err
}

func (t *Transport) realmTransport() http.RoundTripper {
	if t.Realm != nil {
		return t.Realm
	}
	return t.Base
}

// Close ends the exchanges under way and waits for them. The transport must not be
// used afterwards.
func (t *Transport) Close() { t.closing.Do(t.tokens.close) }

// discard reads the little that is left of a response, so that its connection can be
// used again, and closes it.
func discard(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	_ = resp.Body.Close()
}
