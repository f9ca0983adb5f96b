package auth

import (
	"slices"

	"github.com/sidemirror/sidemirror/proxy/credential"
)

// Visitor is what a token of sidemirror's own says of a visitor of the site who has logged in there.
// It gives nothing at a registry.
type Visitor struct {
	Name       string
	Generation string // of the visitor's password

	registry     string
	repositories []string
}

// VisitorToken returns the response to the token request of a visitor who has logged in. The scopes
// are those that [CompleteScopes] has returned for the registry.
func VisitorToken(name, generation, registry string, scopes []string) *Relayed {
	t := sealed{Visitor: name, Generation: generation, Registry: registry}
	for _, scope := range scopes {
		t.Repositories = append(t.Repositories, ScopeRepository(scope))
	}
	return sealedResponse(t)
}

// PresentedVisitor returns the visitor whose token is in an Authorization header.
func PresentedVisitor(authorization string) (Visitor, bool) {
	token, own := ownToken(authorization)
	if !own {
		return Visitor{}, false
	}
	t, ok := tokenSealer().open(token)
	if !ok || t.Visitor == "" {
		return Visitor{}, false
	}
	return Visitor{Name: t.Visitor, Generation: t.Generation, registry: t.Registry, repositories: t.Repositories}, true
}

// May reports whether the token is for a repository of a registry. Every token is for a request that
// names no repository.
func (v Visitor) May(registry, repository string) bool {
	return repository == "" || v.registry == registry && slices.Contains(v.repositories, repository)
}

// Password returns the name and the password that the client sends, in a header or in a form. Both are
// empty if it sends neither.
func (in TokenRequest) Password() (name string, password credential.Secret) {
	c := in.login()
	return c.username, credential.NewSecret(c.password)
}
