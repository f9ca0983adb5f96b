package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

const (
	maxTokenBody = 64 << 10         // bytes; real tokens reach 5 KiB and more
	tokenTimeout = 15 * time.Second // for one exchange, whoever waits for it

	defaultLifetime = 60 * time.Second // "expires_in … if omitted, this defaults to 60 seconds"
	maxLifetime     = time.Hour
	minLifetime     = 10 * time.Second // however old issued_at is: its clock may be wrong

	clientID = "sidemirror"
)

// token is a Bearer token and until when it may be used, by the monotonic clock.
type token struct {
	value           credential.Secret
	fetched, expiry time.Time
}

func (t *token) live(now time.Time) bool { return t != nil && now.Before(t.expiry) }

// old reports whether t is past half its life: from then on ECR Public may answer
// it with 400 or 403 instead of 401.
func (t *token) old(now time.Time) bool {
	return now.Sub(t.fetched) > t.expiry.Sub(t.fetched)/2
}

// exchange is one question to a token server.
type exchange struct {
	realm      *url.URL
	service    string
	scope      string
	credential credential.Credential
}

// fetch asks for a token, in the ways of the Docker token specification and of its
// OAuth2 variant, whichever the credential needs and the server knows.
func (t *Transport) fetch(ctx context.Context, x exchange) (*token, error) {
	if !x.credential.IdentityToken.IsZero() {
		tok, status, err := t.ask(ctx, x.post("refresh_token"))
		if err == nil || x.credential.Username == "" || !otherWay(status) {
			return tok, err
		}
	}
	tok, status, err := t.ask(ctx, x.get())
	if err == nil || x.credential.Password.IsZero() || (status != http.StatusNotFound && status != http.StatusMethodNotAllowed) {
		return tok, err
	}
	tok, _, err = t.ask(ctx, x.post("password"))
	return tok, err
}

// otherWay reports whether a server that answers so to a POST may know the GET.
func otherWay(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusNotFound, http.StatusMethodNotAllowed:
		return true
	}
	return false
}

func (x exchange) get() *http.Request {
	u := *x.realm
	q := u.Query()
	if x.service != "" {
		q.Set("service", x.service)
	}
	if x.scope != "" {
		q.Set("scope", x.scope)
	}
	u.RawQuery = q.Encode()
	req := &http.Request{Method: http.MethodGet, URL: &u, Host: u.Host, Header: http.Header{}}
	if c := x.credential; !c.IsZero() {
		secret := c.Password
		if secret.IsZero() {
			secret = c.IdentityToken
		}
		req.SetBasicAuth(c.Username, secret.Reveal())
	}
	return req
}

func (x exchange) post(grant string) *http.Request {
	form := url.Values{"grant_type": {grant}, "client_id": {clientID}, "service": {x.service}}
	if x.scope != "" {
		form.Set("scope", x.scope)
	}
	switch grant {
	case "refresh_token":
		form.Set("refresh_token", x.credential.IdentityToken.Reveal())
	case "password":
		form.Set("username", x.credential.Username)
		form.Set("password", x.credential.Password.Reveal())
	}
	return postForm(x.realm, form)
}

func postForm(u *url.URL, form url.Values) *http.Request {
	body := form.Encode()
	return &http.Request{
		Method: http.MethodPost, URL: u, Host: u.Host,
		Header:        http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
		Body:          io.NopCloser(strings.NewReader(body)),
		ContentLength: int64(len(body)),
	}
}

// ask sends one request to a token server and reads its answer. A redirect is an
// answer like any other that is not 200: neither the credential nor the body may
// follow one. status is 0 where there was no answer.
func (t *Transport) ask(ctx context.Context, req *http.Request) (tok *token, status int, err error) {
	resp, err := t.sendToRealm(ctx, req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, resp.StatusCode, realmStatus(req.URL, resp)
	}
	tok, err = readToken(resp.Body, time.Now())
	if err != nil {
		return nil, resp.StatusCode, &oci.Error{Code: oci.Unavailable, Message: "the token server " + req.URL.Host + " gave no token: " + err.Error()}
	}
	return tok, resp.StatusCode, nil
}

func (t *Transport) sendToRealm(ctx context.Context, req *http.Request) (*http.Response, error) {
	req = req.WithContext(ctx)
	if t.UserAgent != "" {
		req.Header.Set("User-Agent", t.UserAgent)
	}
	resp, err := t.realmTransport().RoundTrip(req)
	if err != nil {
		return nil, &oci.Error{Code: oci.Unavailable, Message: "the token server " + req.URL.Host + " could not be asked", Err: Redact(err)}
	}
	return resp, nil
}

// realmStatus tells what a token server that refuses means.
func realmStatus(realm *url.URL, resp *http.Response) error {
	says := fmt.Sprintf("the token server %s answered %d", realm.Host, resp.StatusCode)
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return &oci.Error{Code: oci.Unauthorized, Message: says}
	case http.StatusForbidden:
		return &oci.Error{Code: oci.Denied, Message: says}
	case http.StatusTooManyRequests:
		return &oci.Error{Code: oci.TooManyRequests, Message: says, RetryAfter: RetryAfter(resp.Header, time.Now())}
	}
	return &oci.Error{Code: oci.Unavailable, Message: says}
}

// readToken reads a token server's answer. Errors say nothing of what was read.
func readToken(r io.Reader, now time.Time) (*token, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxTokenBody+1))
	if err != nil {
		return nil, errors.New("its answer broke off")
	}
	if len(body) > maxTokenBody {
		return nil, fmt.Errorf("its answer is longer than %d bytes", maxTokenBody)
	}
	var answer struct {
		Token       string          `json:"token"`
		AccessToken string          `json:"access_token"`
		ExpiresIn   json.RawMessage `json:"expires_in"`
		IssuedAt    json.RawMessage `json:"issued_at"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, errors.New("its answer is not the JSON of a token")
	}
	value := answer.Token
	if value == "" {
		value = answer.AccessToken
	}
	if value == "" || strings.ContainsFunc(value, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return nil, errors.New("there is none in its answer")
	}
	life := lifetime(answer.ExpiresIn, answer.IssuedAt, now)
	return &token{value: credential.NewSecret(value), fetched: now, expiry: now.Add(life)}, nil
}

// lifetime says how long a token may be used: expires_in as a number or a string of
// one, 60 s where it is missing or makes no sense, an hour at most, less a tenth,
// for the token's way to us and to the registry. issued_at may only shorten it, and
// not below 10 s: a server's clock may be off by more than a token's life.
func lifetime(expiresIn, issuedAt json.RawMessage, now time.Time) time.Duration {
	life := defaultLifetime
	text := strings.Trim(string(expiresIn), `" `)
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds > 0 {
		life = maxLifetime
		if seconds < maxLifetime.Seconds() {
			life = time.Duration(seconds * float64(time.Second))
		}
	}
	var issued time.Time
	if json.Unmarshal(issuedAt, &issued) == nil && !issued.IsZero() {
		if left := issued.Add(life).Sub(now); left < life {
			life = max(left, min(life, minLifetime))
		}
	}
	return life - life/10
}

// RetryAfter reads a Retry-After header (RFC 9110, 10.2.3: seconds or a date),
// bounded to an hour. 0 means that there is none.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	const most = time.Hour
	v := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseInt(v, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(max(seconds, 0), int64(most/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(at.Sub(now), 0), most)
	}
	return 0
}

// Redact takes out of an error what it may hold of a URL beyond its host: queries
// of signed URLs, a realm's parameters.
func Redact(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
