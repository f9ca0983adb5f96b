package credential

import (
	"context"
	"fmt"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// IdentityUser is the username by which a credential helper says that the secret is an identity
// token. A file has "identitytoken" for that: there it is a username like any other.
const IdentityUser = "<token>"

// Helpers are Docker's credential helpers: programs called docker-credential-NAME.
type Helpers interface {
	// Get returns what the helper called name has for server, or the zero Credential if it says
	// that it has nothing.
	Get(ctx context.Context, name, server string) (Credential, error)

	// Usable returns why the helper called name cannot be run, or nil.
	Usable(name string) error

	// For reports whether the helper called name may be asked about registry as a document's
	// "credsStore". Some return the machine's own token whatever they are asked about.
	For(name, registry string) bool
}

// find returns the login for repository in registry, or the zero one. It follows the tools whose
// files these are. Where they differ, the more specific key wins, and of two equal ones the helper.
//
//   - The helper that "credHelpers" names for the registry is final. If it has nothing, a login
//     that an earlier tool left in "auths" is not used.
//   - A namespace is more specific than a registry. An empty entry for one means anonymous.
//   - "credsStore" has the login of every other registry.
func (d *document) find(ctx context.Context, helpers Helpers, registry, repository string) (Credential, error) {
	registry = oci.CanonicalRegistry(registry)
	helper, configured := d.helpers[registry]
	if configured && helper != "" {
		return ask(ctx, helpers, helper, registry)
	}
	for _, e := range d.entries {
		if !e.covers(registry, repository) {
			continue
		}
		if e.namespace == "" {
			break
		}
		return e.login()
	}
	if !configured && d.store != "" && (helpers == nil || helpers.For(d.store, registry)) {
		return ask(ctx, helpers, d.store, registry)
	}
	for _, e := range d.entries {
		if e.namespace == "" && e.covers(registry, repository) {
			return e.login()
		}
	}
	return Credential{}, nil
}

func (e entry) covers(registry, repository string) bool {
	if e.wildcard && !MatchHost(e.registry, registry) || !e.wildcard && e.registry != registry {
		return false
	}
	return within(repository, e.namespace)
}

func (e entry) login() (Credential, error) {
	if e.err != nil {
		return Credential{}, fmt.Errorf("the login for %s: %w", joinKey(e.registry, e.namespace), e.err)
	}
	return e.credential, nil
}

// ask asks a helper by the name under which docker login has it store the login of a registry.
func ask(ctx context.Context, helpers Helpers, name, registry string) (Credential, error) {
	if err := usable(helpers, name); err != nil {
		return Credential{}, err
	}
	return helpers.Get(ctx, name, ServerName(registry))
}

func usable(helpers Helpers, name string) error {
	if helpers == nil {
		return fmt.Errorf("the credential helper %q has the login, and is not run for this source", name)
	}
	return helpers.Usable(name)
}

// ServerName returns the name by which credential helpers know a registry.
func ServerName(registry string) string {
	if registry == oci.DockerHub {
		return oci.DockerHubLogin
	}
	return registry
}
