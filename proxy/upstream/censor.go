package upstream

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	maxRefusal     = 64 << 10        // bytes of the body of a refusal
	refusalTimeout = 2 * time.Second // for it to come in
)

// censor reads the body of resp if resp is a refusal, whose text may be passed on to the
// caller and to the log. A body that repeats a secret of the request is dropped, and so is one
// that is too long or does not come in: it must not delay the response.
func (id Identity) censor(resp *http.Response) {
	if resp.StatusCode < 400 {
		return
	}
	timer := time.AfterFunc(refusalTimeout, func() { _ = resp.Body.Close() })
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal+1))
	timer.Stop()
	_ = resp.Body.Close()
	if err != nil || len(body) > maxRefusal || repeats(body, id.secrets(resp)) {
		body = nil
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	resp.ContentLength = int64(len(body))
}

// censored is censor for the results of a function.
func (id Identity) censored(resp *http.Response, err error) (*http.Response, error) {
	if err == nil {
		id.censor(resp)
	}
	return resp, err
}

// secrets returns what a request in this identity may have told the upstream, in the forms in
// which it is sent. resp holds the request with the token that it carried.
func (id Identity) secrets(resp *http.Response) []string {
	var all []string
	add := func(secret string) {
		if secret != "" {
			all = append(all, secret, url.QueryEscape(secret))
		}
	}
	addHeader := func(authorization string) {
		_, value, _ := strings.Cut(authorization, " ")
		add(value)
	}
	addHeader(id.Authorization.Reveal())
	if resp.Request != nil {
		addHeader(resp.Request.Header.Get("Authorization"))
	}
	if id.Access != nil {
		c := id.Access.Credential
		add(c.Password.Reveal())
		add(c.IdentityToken.Reveal())
		if !c.Password.IsZero() {
			add(base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + c.Password.Reveal())))
		}
	}
	return all
}

func repeats(text []byte, secrets []string) bool {
	return slices.ContainsFunc(secrets, func(s string) bool { return bytes.Contains(text, []byte(s)) })
}
