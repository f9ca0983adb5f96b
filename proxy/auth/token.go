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
	"sync/atomic"
	"time"

	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

const (
	maxTokenBody = 64 << 10         // bytes; real tokens reach 5 KiB and more
	tokenTimeout = 15 * time.Second // for one exchange

	// maxRealmRedirects bounds the redirects of a token server within its own origin.
	maxRealmRedirects = 3

	defaultLifetime = 60 * time.Second // "expires_in … if omitted, this defaults to 60 seconds"
	maxLifetime     = time.Hour
	minLifetime     = 10 * time.Second // whatever issued_at says: its clock may be wrong

	clientID = "sidemirror"
)

// token is a Bearer token and until when it may be used, by the monotonic clock.
type token struct {
	value           credential.Secret
	fetched, expiry time.Time

	replacement bool        // it was fetched because the one before it was refused
	accepted    atomic.Bool // the upstream has accepted it
}

func (t *token) live(now time.Time) bool { return t != nil && now.Before(t.expiry) }

// old reports whether t is past half its life: from then on ECR Public may refuse it
// with 400 or 403 instead of 401.
func (t *token) old(now time.Time) bool {
	return now.Sub(t.fetched) > t.expiry.Sub(t.fetched)/2
}

// replaceable reports whether another token may be accepted where t was refused with
// the challenge's error parameter reason (RFC 6750, 3.1), in a request that began at
// started. A token server that has just been asked would grant no other scope, and a
// replacement that is refused too is not replaced at each request.
func (t *token) replaceable(reason string, started time.Time) bool {
	if reason == "insufficient_scope" && !t.fetched.Before(started) {
		return false
	}
	return !t.replacement || t.accepted.Load() || time.Since(t.fetched) > replacementRest
}

// exchange is one request for a token.
type exchange struct {
	realm      *url.URL
	service    string
	scope      string
	credential credential.Credential
}

// fetch asks for a token as the Docker token specification or its OAuth2 variant says,
// whichever the credential needs and the server knows.
func (t *Transport) fetch(ctx context.Context, x exchange) (*token, error) {
	if !x.credential.IdentityToken.IsZero() {
		tok, status, err := t.ask(ctx, x, x.post("refresh_token"))
		if err == nil || x.credential.Username == "" || !otherWay(status) {
			return tok, err
		}
	}
	tok, status, err := t.ask(ctx, x, x.get())
	if err == nil || x.credential.Password.IsZero() || (status != http.StatusNotFound && status != http.StatusMethodNotAllowed) {
		return tok, err
	}
	tok, _, err = t.ask(ctx, x, x.post("password"))
	return tok, err
}

// otherWay reports whether a server that answers a POST with status may know GET.
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
	open := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
	first, _ := open()
	return &http.Request{
		Method: http.MethodPost, URL: u, Host: u.Host,
		Header:        http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
		Body:          first,
		GetBody:       open,
		ContentLength: int64(len(body)),
	}
}

// ask sends one request of an exchange to a token server and reads its response. status is 0 if
// there was none.
func (t *Transport) ask(ctx context.Context, x exchange, req *http.Request) (tok *token, status int, err error) {
	resp, err := t.sendToRealm(ctx, req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNonAuthoritativeInfo {
		censor(resp, x.credential)
		return nil, resp.StatusCode, realmStatus(req.URL, resp)
	}
	tok, err = readToken(resp.Body, time.Now())
	if err != nil {
		return nil, resp.StatusCode, &oci.Error{Code: oci.Unavailable, Message: "the token server " + req.URL.Host + " sent no token: " + err.Error()}
	}
	return tok, resp.StatusCode, nil
}

// sendToRealm sends req to a token server. It follows a redirect within the server's
// own origin. A redirect to another origin is returned as it is: neither a credential
// nor a form may go there.
func (t *Transport) sendToRealm(ctx context.Context, req *http.Request) (*http.Response, error) {
	req = req.WithContext(ctx)
	if t.UserAgent != "" {
		req.Header.Set("User-Agent", t.UserAgent)
	}
	for hops := 0; ; hops++ {
		resp, err := t.realmTransport().RoundTrip(req)
		if err != nil {
			return nil, &oci.Error{Code: oci.Unavailable, Message: "the token server " + req.URL.Host + " could not be reached", Err: Redact(err)}
		}
		next := redirectWithin(req, resp)
		if next == nil || hops == maxRealmRedirects {
			return resp, nil
		}
		discard(resp)
		req = next
	}
}

// redirectWithin returns the request that follows resp's redirect, nil if resp is no
// redirect within the origin of req. A form is sent again only where the status says
// that the method stays.
func redirectWithin(req *http.Request, resp *http.Response) *http.Request {
	switch resp.StatusCode {
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
		if req.Method != http.MethodGet {
			return nil
		}
	default:
		return nil
	}
	location := resp.Header.Get("Location")
	to, err := req.URL.Parse(location)
	if err != nil || location == "" || to.User != nil || originOf(to) != originOf(req.URL) {
		return nil
	}
	next := req.Clone(req.Context())
	next.URL, next.Host = to, to.Host
	if req.GetBody != nil {
		if next.Body, err = req.GetBody(); err != nil {
			return nil
		}
	}
	return next
}

// realmStatus returns the error that a token server's refusal means, with the server's own words.
func realmStatus(realm *url.URL, resp *http.Response) error {
	e := &oci.Error{Code: oci.Unavailable, Message: fmt.Sprintf("the token server %s answered %d", realm.Host, resp.StatusCode)}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		e.Code = oci.Unauthorized
	case http.StatusForbidden:
		e.Code = oci.Denied
	case http.StatusTooManyRequests:
		e.Code, e.RetryAfter = oci.TooManyRequests, RetryAfter(resp.Header, time.Now())
	}
	if resp.StatusCode/100 == 3 {
		if to, err := realm.Parse(resp.Header.Get("Location")); err == nil {
			e.Message += fmt.Sprintf(" with a redirect to %s, which is not followed", to.Host)
		}
		return e
	}
	e.ReadRefusal(resp)
	return e
}

// readToken reads a token server's response. Errors contain nothing of what was read.
func readToken(r io.Reader, now time.Time) (*token, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxTokenBody+1))
	if err != nil {
		return nil, errors.New("its response broke off")
	}
	if len(body) > maxTokenBody {
		return nil, fmt.Errorf("its response is longer than %d bytes", maxTokenBody)
	}
	var answer struct {
		Token       string          `json:"token"`
		AccessToken string          `json:"access_token"`
		ExpiresIn   json.RawMessage `json:"expires_in"`
		IssuedAt    json.RawMessage `json:"issued_at"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, errors.New("its response is not the JSON of a token")
	}
	value := answer.Token
	if value == "" {
		value = answer.AccessToken
	}
	if value == "" || strings.ContainsFunc(value, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return nil, errors.New("its response holds none")
	}
	life := lifetime(answer.ExpiresIn, answer.IssuedAt, now)
	return &token{value: credential.NewSecret(value), fetched: now, expiry: now.Add(life)}, nil
}

// lifetime returns how long a token may be used: expires_in as a number or a string of
// one, 60 s if it is missing or makes no sense, an hour at most, less a tenth for the
// time that the token travels. issued_at may only shorten it, and not below 10 s: a
// server's clock may be wrong by more than a token's life.
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
// bounded to an hour. It returns 0 if there is none.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	const most = time.Hour
	v := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseInt(v, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(max(seconds, 0), int64(most/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			now = date // the server's clock, which this host's may differ from by years
		}
		return min(max(at.Sub(now), 0), most)
	}
	return 0
}

// Redact removes from an error the URL that it may hold: signed URLs and the
// parameters of a realm are secrets.
func Redact(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
