package upstream

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

func (u *Upstream) tooMany(wait time.Duration) *oci.Error {
	return &oci.Error{Code: oci.TooManyRequests, RetryAfter: wait, Message: u.url.Host + " answered that it is asked too often (429)"}
}

// explain turns a transport's error into one that says what happened to which host and
// holds nothing secret.
func (u *Upstream) explain(ctx context.Context, target *url.URL, err error) error {
	if e, ok := errors.AsType[*oci.Error](err); ok {
		return e
	}
	if ctx.Err() != nil { // the client left, or its deadline passed
		return &oci.Error{
			Code: oci.Unavailable, Status: http.StatusGatewayTimeout,
			Message: target.Host + " did not answer in time", Err: ctx.Err(),
		}
	}
	return unreachable(target.Host, err)
}

// unreachable returns the error that err, a transport's, means for a request to host.
func unreachable(host string, err error) *oci.Error {
	e := &oci.Error{Code: oci.Unavailable, Message: host + " cannot be reached: " + reason(err), Err: auth.Redact(err)}
	if ofProxy, ok := errors.AsType[*proxyError](err); ok {
		e.Err = ofProxy // its text is that of the message
	}
	if isTimeout(err) {
		e.Status = http.StatusGatewayTimeout
		if _, ofProxy := errors.AsType[*proxyError](err); !ofProxy {
			e.Message = host + " did not answer in time"
		}
	}
	return e
}

func isNoSlot(err error) bool { return errors.Is(err, ErrNoSlot) }
