// Package credential holds what the daemon may log in to registries with, and
// where it comes from.
//
// A source returns the [Credential] for a registry and a repository in it,
// or with the zero one, which means that none is known and the request goes out
// anonymously. A credential that is there but cannot be used is an error, never
// silently anonymous.
package credential

import "context"

// Credential is one login. The zero value is anonymous.
type Credential struct {
	// Username is empty where only an identity token is known.
	Username string

	// Password is the password or access token that goes with Username.
	Password Secret

	// IdentityToken is an OAuth2 refresh token, Docker's "identitytoken". Where it
	// is set the token endpoint is asked by POST with grant_type=refresh_token.
	IdentityToken Secret

	// Generation names this very material: it stays the same as long as the
	// source returns the same username and secrets, and changes with them.
	// It gives nothing of them away and may be logged. Tokens and grants are kept
	// by it. It is the kind of source and 16 hex digits, "store:0f3a…", keyed afresh
	// for each process. Empty for the zero credential only.
	Generation string
}

// IsZero reports whether c is the anonymous credential.
func (c Credential) IsZero() bool {
	return c.Username == "" && c.Password.IsZero() && c.IdentityToken.IsZero()
}

// Source knows credentials. Implementations are safe for concurrent use and
// notice when what they read from has changed.
type Source interface {
	// Lookup returns the credential for repository (which may be empty, for
	// the registry as a whole) in registry (as a reference names it: "docker.io",
	// "registry.corp.example:5000"). The longest matching namespace wins.
	Lookup(ctx context.Context, registry, repository string) (Credential, error)
}
