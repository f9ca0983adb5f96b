package auth

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// clientLogin is the login that a client sends to the token endpoint of relay mode, in a header or
// in a form.
type clientLogin struct {
	username, password string // zero if the client sends no password
	other              string // what else it authenticates itself with
}

// login returns the client's login.
func (in TokenRequest) login() clientLogin {
	header := http.Request{Header: http.Header{"Authorization": {in.Authorization.Reveal()}}}
	if username, password, ok := header.BasicAuth(); ok {
		return clientLogin{username: username, password: password}
	}
	if in.Form.Get("grant_type") == "password" {
		return clientLogin{username: in.Form.Get("username"), password: in.Form.Get("password")}
	}
	return clientLogin{other: in.Authorization.Reveal() + in.Form.Get("refresh_token")}
}

// Anonymous reports whether the client sends no login.
func (in TokenRequest) Anonymous() bool { return in.login() == clientLogin{} }

// Fingerprint returns a short name for the login that the client sends, which reveals nothing of it; it is
// empty if the client sends none.
func (in TokenRequest) Fingerprint() string {
	if in.Anonymous() {
		return ""
	}
	return in.login().key(nil)
}

// basic returns the login as the value of an Authorization header.
func (c clientLogin) basic() string {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(c.username, c.password)
	return r.Header.Get("Authorization")
}

// key returns a name for the login and scopes, which reveals nothing of the login.
func (c clientLogin) key(scopes []string) string {
	secret := c.other
	if c.password != "" {
		secret = c.basic()
	}
	return Fingerprint(secret) + " " + strings.Join(scopes, " ")
}

// asItCame returns the client's request as one to realm. In addition to scope and service it
// passes on the parameters that the token specification knows, and no others.
func (in TokenRequest) asItCame(realm *url.URL, service string) *http.Request {
	req := in.get(realm, service, clientLogin{})
	if in.Form != nil {
		req = in.post(realm, service, clientLogin{})
	}
	if _, own := ownToken(in.Authorization.Reveal()); !own && !in.Authorization.IsZero() {
		req.Header.Set("Authorization", in.Authorization.Reveal())
	}
	return req
}

// get returns the request to realm by GET.
func (in TokenRequest) get(realm *url.URL, service string, c clientLogin) *http.Request {
	u := *realm
	q := u.Query()
	fill(q, in.Query, "account", "client_id", "offline_token")
	fill(q, in.Form, "client_id")
	if in.Form.Get("access_type") == "offline" {
		q.Set("offline_token", "true")
	}
	setNonEmpty(q, "service", service)
	q["scope"] = in.Scopes
	u.RawQuery = q.Encode()
	req := &http.Request{Method: http.MethodGet, URL: &u, Host: u.Host, Header: http.Header{}}
	if c.password != "" {
		req.Header.Set("Authorization", c.basic())
	}
	return req
}

// post returns the request to realm by POST.
func (in TokenRequest) post(realm *url.URL, service string, c clientLogin) *http.Request {
	form := url.Values{}
	fill(form, in.Query, "client_id")
	fill(form, in.Form, "grant_type", "client_id", "access_type", "username", "password", "refresh_token")
	if c.password != "" {
		form.Set("grant_type", "password")
		form.Set("username", c.username)
		form.Set("password", c.password)
		if form.Get("client_id") == "" {
			form.Set("client_id", clientID)
		}
	}
	setNonEmpty(form, "service", service)
	setNonEmpty(form, "scope", strings.Join(in.Scopes, " "))
	return postForm(realm, form)
}

// withBothNames returns a token server's response with the token under both of its names. A
// client that asked by POST looks for access_token, and other clients for token.
func withBothNames(body []byte) []byte {
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return body
	}
	token, access := fields["token"], fields["access_token"]
	switch {
	case token == nil && access != nil:
		fields["token"] = access
	case token != nil && access == nil:
		fields["access_token"] = token
	default:
		return body
	}
	both, err := json.Marshal(fields)
	if err != nil || len(both) > 2*maxTokenBody {
		return body
	}
	return both
}

const (
	maxRelayedRefusals = 256
	maxRelayedBody     = 4 << 10 // bytes of a refusal's body that are remembered
	relayedRefusalLife = 30 * time.Second
)

// relayedRefusals remember which logins of clients were refused a short while ago, and how.
type relayedRefusals struct {
	mu     sync.Mutex
	stored map[string]relayedRefusal
}

type relayedRefusal struct {
	answer *Relayed
	until  time.Time
}

func (r *relayedRefusals) get(key string) *Relayed {
	r.mu.Lock()
	defer r.mu.Unlock()
	if refused := r.stored[key]; time.Now().Before(refused.until) {
		return refused.answer
	}
	return nil
}

func (r *relayedRefusals) put(key string, answer *Relayed) {
	if len(answer.Body) > maxRelayedBody { // untrusted callers may make many
		short := *answer
		short.Body, short.ContentType = nil, ""
		answer = &short
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stored == nil || len(r.stored) >= maxRelayedRefusals {
		r.stored = map[string]relayedRefusal{}
	}
	r.stored[key] = relayedRefusal{answer, time.Now().Add(relayedRefusalLife)}
}
