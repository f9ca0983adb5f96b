package upstream

import (
	"context"
	"fmt"
	"net/http"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// Login asks the upstream whether it accepts cred. It returns nil if it does, and an error
// with oci.Unauthorized if it does not. It asks for no repository: a registry may
// refuse one that does not exist, whatever the login.
func (u *Upstream) Login(ctx context.Context, cred credential.Credential) error {
	status, err := u.ping(ctx, Request{})
	if err != nil {
		return err
	}
	with := Request{Identity: Identity{Access: &auth.Access{Credential: cred}}}
	if status == http.StatusOK {
		// Anyone may see /v2/. Artifactory and Nexus answer so if they are open to read, and
		// still refuse a wrong login.
		basic := http.Request{Header: http.Header{}}
		basic.SetBasicAuth(cred.Username, cred.Password.Reveal())
		with = Request{Identity: Identity{Authorization: credential.NewSecret(basic.Header.Get("Authorization"))}}
	}
	status, err = u.ping(ctx, with)
	if err != nil {
		return err
	}
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return &oci.Error{Code: oci.Unauthorized, Message: u.url.Host + " refuses this login"}
	case status >= 300:
		return &oci.Error{Code: oci.Unavailable, Message: fmt.Sprintf("%s answers %d, which says nothing of the login", u.url.Host, status)}
	}
	return nil
}

func (u *Upstream) ping(ctx context.Context, r Request) (status int, err error) {
	r.Method, r.Path, r.Certificate = http.MethodGet, "/v2/", true
	resp, err := u.Do(ctx, r)
	if err != nil {
		return 0, err
	}
	drain(resp)
	return resp.StatusCode, nil
}
