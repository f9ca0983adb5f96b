// Package credential provides the logins that the daemon has for registries.
//
// A source returns the [Credential] for a host and a repository, or the zero one, which means that
// none is known and the request goes out anonymously. A credential that may exist and cannot be
// read is an error. The request then goes out anonymously too, and the error is a problem to show.
package credential

import "context"

// Credential is one login. The zero value is anonymous.
type Credential struct {
	// Username is empty if only an identity token is known.
	Username string

	// Password is the password or access token that goes with Username.
	Password Secret

	// IdentityToken is an OAuth2 refresh token, Docker's "identitytoken". With it the token
	// endpoint is asked by POST with grant_type=refresh_token.
	IdentityToken Secret

	// Generation names this very material: it stays the same as long as the source returns the same
	// username and secrets, and changes with them. It reveals nothing of them and may be logged.
	// Tokens are stored by it. It is the kind of source and 16 hex digits, "store:0f3a…", with a
	// new key for each process. It is empty for the zero credential only.
	Generation string

	renewal *renewal // shared by copies; nil if the source reads anew at each Lookup
}

type renewal struct {
	renew func(ctx context.Context) (Credential, error)
}

// WithRenewal returns c with renew, which returns what the source has in place of c.
func (c Credential) WithRenewal(renew func(ctx context.Context) (Credential, error)) Credential {
	c.renewal = &renewal{renew}
	return c
}

// Renewed returns other material from the source of c, which a registry has refused: a password
// that was changed, or a token that was revoked. ok is false if there is none.
func (c Credential) Renewed(ctx context.Context) (next Credential, ok bool) {
	if c.renewal == nil {
		return Credential{}, false
	}
	next, err := c.renewal.renew(ctx)
	return next, err == nil && !next.IsZero() && next.Generation != c.Generation
}

// IsZero reports whether c is the anonymous credential.
func (c Credential) IsZero() bool {
	return c.Username == "" && c.Password.IsZero() && c.IdentityToken.IsZero()
}

// Source knows credentials. Implementations are safe for concurrent use, and notice when what they
// read from has changed.
type Source interface {
	// Lookup returns the credential for repository (empty for the registry as a whole) in registry,
	// which is the host and port of the upstream, or "docker.io" for Docker Hub. The longest
	// matching namespace wins.
	Lookup(ctx context.Context, registry, repository string) (Credential, error)
}
