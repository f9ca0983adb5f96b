// Package access decides who is asking and what they may have.
//
// A [Policy] identifies the caller of a request once, before anything else is done for it.
// The result, a [Caller], says whether the caller is a trusted engine and in which
// [Identity] each upstream is asked on its behalf. [Grants] remember which identity each
// upstream has let have content of which repository, so that the cache never gives a caller
// more than the upstream would.
package access

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/credential"
)

// anonymous is the name of the identity that has no credential.
const anonymous = "anonymous"

// Identity is the identity in which one upstream is asked: anonymous, with a credential or
// client certificate of the daemon, or with the caller's own Authorization header.
type Identity struct {
	// Credential is the daemon's login; zero for none.
	Credential credential.Credential

	// Authorization is the caller's own header; zero for none.
	Authorization credential.Secret

	// Relay means that the caller answers the upstream's challenges itself.
	Relay bool

	// MayLogIn means that the caller may answer a refusal with a login of its own, although
	// sidemirror answers the challenges as long as it sends none.
	MayLogIn bool

	// Certificate means that the upstream sees the daemon's client certificate.
	Certificate bool

	name   string    // the same for the same material; of a bearer, only in this process
	bearer bool      // the caller's own Authorization
	until  time.Time // when a bearer's token ends, if the token says so
}

// Anonymous reports whether an upstream that is asked in this identity learns nothing that not everyone
// could show it.
func (id Identity) Anonymous() bool {
	return id.Credential.IsZero() && id.Authorization.IsZero() && !id.Certificate
}

// Recorded returns the name under which the cache records what this identity learns. It is
// empty for a caller's own token, which is never written to disk in any form.
func (id Identity) Recorded() string {
	if id.bearer {
		return ""
	}
	return id.name
}

// daemonIdentity returns the identity of the daemon's own credential. name makes a name of
// secrets that survives a restart; without it the credential's generation serves.
func daemonIdentity(c credential.Credential, name func(secrets ...string) string) Identity {
	if c.IsZero() {
		return Identity{name: anonymous}
	}
	id := Identity{Credential: c, name: c.Generation}
	if name != nil {
		id.name = name(c.Username, c.Password.Reveal(), c.IdentityToken.Reveal())
	}
	return id
}

// withCertificate returns the identity that shows a client certificate as well.
func (id Identity) withCertificate(fingerprint string) Identity {
	id.Certificate = true
	id.name += " certificate " + fingerprint
	return id
}

// clientIdentity returns the identity of a caller who sends its own Authorization.
func clientIdentity(authorization credential.Secret) Identity {
	if authorization.IsZero() {
		return Identity{name: anonymous, Relay: true}
	}
	return Identity{
		Relay:         true,
		Authorization: authorization,
		name:          auth.Fingerprint(authorization.Reveal()),
		bearer:        true,
		until:         tokenEnd(authorization.Reveal()),
	}
}

// tokenEnd returns when the token of an Authorization header ends, if it is a JWT that says
// so (RFC 7519, 4.1.4). The claim can only shorten a grant, so the signature does not matter.
func tokenEnd(authorization string) time.Time {
	parts := strings.Split(authorization, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}
	}
	var c struct {
		Exp float64 `json:"exp"` // a NumericDate may have a fraction
	}
	if json.Unmarshal(claims, &c) != nil || c.Exp <= 0 || c.Exp > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(c.Exp), 0)
}
