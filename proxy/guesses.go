package proxy

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/proxy/access"
	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/peer"
)

// guarded calls send, which sends a login of an untrusted caller's own to a registry, unless the caller
// has to wait after too many wrong ones. login is the login's fingerprint; it is empty if there is none.
// outcome says whether the registry has taken the login, and whether it has said so.
func (p *Proxy) guarded(w *response, login string, send func() error, outcome func(error) (right, known bool)) error {
	if login == "" || w.line.trusted {
		return send()
	}
	from := w.line.sender()
	if wait := p.guesses.Try(from, login); wait > 0 {
		return ownRefusal{&oci.Error{
			Code: oci.TooManyRequests, RetryAfter: max(wait, time.Second),
			Message: "too many wrong logins for registries came from your address: wait",
		}}
	}
	err := send()
	right, known := outcome(err)
	p.guesses.Settle(from, login, right, known)
	return err
}

// sender returns where a request of an untrusted caller comes from: a visitor's network, a guest, or a
// user of this host.
func (l *accessLine) sender() string {
	if l.visit != nil {
		return l.visit.Network().String()
	}
	if !access.IsGuest(l.http.Context()) {
		if caller, err := peer.FromContext(l.http.Context()); err == nil {
			return "uid " + strconv.FormatUint(uint64(caller.UID), 10)
		}
	}
	host, _, _ := net.SplitHostPort(l.http.RemoteAddr) // it is as the listener has written it
	return host
}

// password returns the fingerprint of the name and the password with which an upstream is asked for r in
// the caller's own name; empty if there is none. A token is none: it cannot be guessed.
func (r *request) password() string {
	for _, u := range r.registry.upstreams {
		header := r.caller.At(u.Name).Authorization.Reveal()
		if scheme, _, _ := strings.Cut(header, " "); strings.EqualFold(scheme, "Basic") {
			return auth.Fingerprint(header)
		}
	}
	return ""
}

// tookPassword reports what the error of a request for content says about the password.
func tookPassword(err error) (right, known bool) {
	if err == nil {
		return true, true
	}
	switch oci.AsError(err).Code {
	case oci.Unauthorized, oci.Denied:
		return false, true
	case oci.ManifestUnknown, oci.BlobUnknown, oci.NameUnknown:
		return true, true
	}
	return false, false
}

// tookLogin reports what a token server's status says about a login.
func tookLogin(status int) (right, known bool) {
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusBadRequest:
		return false, true
	case status/100 == 2:
		return true, true
	}
	return false, false
}
