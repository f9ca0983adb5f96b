package auth

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

const (
	maxRefusalText     = 64 << 10        // bytes of the body of a refusal
	refusalTextTimeout = 2 * time.Second // for it to come in
)

// censor reads the body of resp, the refusal of a credential, whose text may reach the log and the
// caller. It drops a body that repeats the credential, and one that is too long or does not come in.
func censor(resp *http.Response, c credential.Credential) {
	timer := time.AfterFunc(refusalTextTimeout, func() { _ = resp.Body.Close() })
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusalText+1))
	timer.Stop()
	_ = resp.Body.Close()
	if err != nil || len(body) > maxRefusalText || repeats(body, c) {
		body = nil
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
}

// repeats reports whether a text contains a secret of c, in one of the forms in which it is sent.
func repeats(text []byte, c credential.Credential) bool {
	for _, secret := range []string{c.Password.Reveal(), c.IdentityToken.Reveal()} {
		if secret == "" {
			continue
		}
		header := base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + secret))
		for _, form := range []string{secret, url.QueryEscape(secret), header} {
			if bytes.Contains(text, []byte(form)) {
				return true
			}
		}
	}
	return false
}

// refusalText returns what host said with a refusal whose body has been censored. The body can be
// read again.
func refusalText(host string, resp *http.Response) string {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		body = nil
	}
	e := &oci.Error{Message: fmt.Sprintf("%s answered %d", host, resp.StatusCode)}
	again := *resp
	again.Body = io.NopCloser(bytes.NewReader(body))
	e.ReadRefusal(&again)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return e.Message
}
