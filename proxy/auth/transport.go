package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// Transport is an http.RoundTripper towards one upstream that answers its
// challenges. A request whose context carries no [Access] passes through as it is.
//
// What it learns, the challenge and the tokens, it keeps: a pull of ten layers
// costs one exchange. Tokens are kept by the credential's generation and the
// scope, so that nobody is served with another's.
//
// The zero value of every field but Base and Realms.Upstream is useful.
type Transport struct {
	Base      http.RoundTripper // to the upstream
	Realm     http.RoundTripper // to its token server; if nil, Base
	Realms    RealmPolicy
	UserAgent string // sent to the token server

	challenge atomic.Pointer[remembered]
	tokens    tokens
	refusals  refusals
	closing   sync.Once
}

// Access says on whose behalf a request is sent and what for.
type Access struct {
	Repository string // empty for the registry as a whole
	Credential credential.Credential
}

type accessKey struct{}

// WithAccess gives a context for a request whose challenges are to be answered.
func WithAccess(ctx context.Context, a Access) context.Context {
	return context.WithValue(ctx, accessKey{}, a)
}

// remembered is a challenge and when it was seen.
type remembered struct {
	Challenge
	at time.Time
}

// sent is what went out in a request's Authorization.
type sent struct {
	header credential.Secret
	token  *token // nil for Basic and for none
}

func (s sent) isBasic() bool { return !s.header.IsZero() && s.token == nil }

// RoundTrip sends req with what it takes to be let in: nothing, Basic, or a token.
// A 401 is answered once; so is a 400 or 403 to a token past half its life. The
// upstream's last word is returned whatever it is. Errors are an [*oci.Error] that
// says what is wrong with the challenge, the token server or the credential, or
// the base transport's own.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	access, ok := req.Context().Value(accessKey{}).(Access)
	if !ok {
		return t.Base.RoundTrip(req)
	}
	with, err := t.authorize(req.Context(), access, t.challenge.Load())
	if err != nil {
		return nil, err
	}
	resp, err := t.send(req, with)
	if err != nil || !t.refused(resp, with) {
		return resp, err
	}
	if resp.StatusCode == http.StatusUnauthorized {
		known, err := t.learn(resp)
		if err != nil || known == nil {
			return giveUp(resp, err)
		}
		if known.Scheme == "basic" && with.isBasic() {
			return resp, nil
		}
	}
	t.tokens.drop(t.key(access), with.token)
	with, err = t.authorize(req.Context(), access, t.challenge.Load())
	if err != nil {
		return giveUp(resp, err)
	}
	if with.header.IsZero() { // Basic is asked for, and we are anonymous
		return resp, nil
	}
	discard(resp)
	return t.send(req, with)
}

// refused reports whether resp says that what it was asked with will not do.
func (t *Transport) refused(resp *http.Response, with sent) bool {
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return true
	case http.StatusBadRequest, http.StatusForbidden:
		return with.token != nil && with.token.old(time.Now())
	}
	return false
}

// learn remembers the challenge of a 401. It gives nil where there is none that we
// can answer.
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

// authorize says what to send for access, given the challenge known, if any.
func (t *Transport) authorize(ctx context.Context, a Access, known *remembered) (sent, error) {
	if known == nil {
		return sent{}, nil
	}
	if known.Scheme == "basic" {
		return basic(a.Credential), nil
	}
	tok, err := t.token(ctx, a, known)
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

// token gives the token kept for access, or fetches one: one fetch at a time
// however many ask.
func (t *Transport) token(ctx context.Context, a Access, known *remembered) (*token, error) {
	key := t.key(a)
	return t.tokens.get(ctx, key, func(ctx context.Context) (*token, error) {
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
		tok, err := t.fetch(ctx, exchange{realm, known.Params["service"], key.scope, a.Credential})
		if err == nil {
			t.refusals.prove(a.Credential.Generation)
		} else if errors.Is(err, &oci.Error{Code: oci.Unauthorized}) {
			t.refusals.refuse(a.Credential.Generation, key.scope)
		}
		return tok, err
	})
}

// heldBack is the error of a credential that was refused a short while ago.
func (t *Transport) heldBack(a Access) error {
	if !t.refusals.holds(a.Credential.Generation, PullScope(a.Repository)) {
		return nil
	}
	return &oci.Error{Code: oci.Unauthorized, Message: "the credential for " + t.Realms.Upstream.Host +
		" was refused a short while ago and is not tried again yet; mend it with sidemirror login"}
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
	return t.Base.RoundTrip(out)
}

// sendBasic sends a login, and notes what becomes of it.
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
	case resp.StatusCode == http.StatusUnauthorized:
		t.refusals.refuse(generation, scope)
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

// giveUp ends with err, or with the answer where there is no error.
func giveUp(resp *http.Response, err error) (*http.Response, error) {
	if err != nil {
		discard(resp)
		return nil, err
	}
	return resp, nil
}

// Close ends the exchanges under way and waits for them. The transport must not be
// used afterwards.
func (t *Transport) Close() { t.closing.Do(t.tokens.close) }

// discard reads the little that is left of an answer, so that its connection can be
// used again, and closes it.
func discard(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	_ = resp.Body.Close()
}

// Fingerprint gives a short name for an Authorization header that tells two apart
// and gives nothing of them away; for no header it is empty.
func Fingerprint(authorization string) string {
	if authorization == "" {
		return ""
	}
	mac := hmac.New(sha256.New, fingerprintKey())
	mac.Write([]byte(authorization))
	return "bearer:" + hex.EncodeToString(mac.Sum(nil)[:8])
}

var fingerprintKey = sync.OnceValue(func() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: crypto/rand
	return key
})
