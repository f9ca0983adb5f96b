package upstream

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// Login asks the upstream whether it accepts cred. It returns nil if it does, and an error
// with oci.Unauthorized if it does not. It asks for no repository: a registry may
// refuse one that does not exist, whatever the login.
func (u *Upstream) Login(ctx context.Context, cred credential.Credential) error {
	resp, err := u.ping(ctx, Request{})
	if err != nil {
		return err
	}
	drain(resp)
	with := Request{Identity: Identity{Access: &auth.Access{Credential: cred}}}
	if resp.StatusCode == http.StatusOK {
		// Anyone may see /v2/. Artifactory and Nexus answer so if they are open to read, and
		// still refuse a wrong login.
		basic := http.Request{Header: http.Header{}}
		basic.SetBasicAuth(cred.Username, cred.Password.Reveal())
		with = Request{Identity: Identity{Authorization: credential.NewSecret(basic.Header.Get("Authorization"))}}
	}
	if resp, err = u.ping(ctx, with); err != nil {
		return err
	}
	var refused *oci.Error
	switch status := resp.StatusCode; {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		refused = &oci.Error{Code: oci.Unauthorized, Message: u.url.Host + " refuses this login"}
	case status == http.StatusTooManyRequests:
		refused = &oci.Error{
			Code: oci.TooManyRequests, Message: u.url.Host + " answers 429, which says nothing of the login",
			RetryAfter: auth.RetryAfter(resp.Header, time.Now()),
		}
	case status >= 300:
		refused = &oci.Error{Code: oci.Unavailable, Message: fmt.Sprintf("%s answers %d, which says nothing of the login", u.url.Host, status)}
	default:
		drain(resp)
		return nil
	}
	return explained(refused, resp)
}

// explained adds the registry's own words to the error that its refusal means.
func explained(e *oci.Error, resp *http.Response) error {
	e.ReadRefusal(resp)
	for _, item := range e.Passed {
		if item.Message != "" {
			e.Message += ": " + item.Message
			break
		}
	}
	return e
}

func (u *Upstream) ping(ctx context.Context, r Request) (*http.Response, error) {
	r.Method, r.Path, r.Certificate = http.MethodGet, "/v2/", true
	return u.Do(ctx, r)
}
