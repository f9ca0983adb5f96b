package auth

import (
	"fmt"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// maxScopes bounds the scopes of one request to our token endpoint.
const maxScopes = 16

// PullScope gives the scope that pulling from repository needs. It is made from the
// path that is asked for and never copied from a challenge: ghcr.io names a sample
// repository in that of /v2/.
func PullScope(repository string) string {
	if repository == "" {
		return ""
	}
	return "repository:" + repository + ":pull"
}

// CompleteScopes makes the scopes that a client of relay mode asks for into those
// to ask its upstream for: names as the upstream has them, completed with
// "library/" where that is due, each once (ciiiii#79 sent two), and no action but
// pull, since nothing else can be done here. registry is the one that the request
// itself names; where scopes are prefixed with a registry's name, as clients that
// pull by prefix send them, the one they agree on is returned instead.
func CompleteScopes(registry string, scopes []string, names oci.Registries, prefixed bool) (string, []string, error) {
	var done []string
	prefix := ""
	for _, s := range splitScopes(scopes) {
		if len(done) == maxScopes {
			return "", nil, scopeError("more than %d scopes are asked for", maxScopes)
		}
		kind, rest, _ := strings.Cut(s, ":")
		colon := strings.LastIndexByte(rest, ':')
		if colon < 0 {
			return "", nil, scopeError("a scope is not of the form repository:NAME:pull")
		}
		name, actions := rest[:colon], rest[colon+1:]
		if kind != "repository" || !grantsPull(actions) {
			continue
		}
		if of, repository := oci.SplitPrefix(name); prefixed && of != "" {
			if !names.Serves(of) {
				return "", nil, &oci.Error{Code: oci.RegistryUnknown, Message: "a scope names a registry that is not served here"}
			}
			if prefix != "" && prefix != of {
				return "", nil, scopeError("the scopes name two registries")
			}
			prefix, registry, name = of, of, repository
		}
		if !oci.ValidRepository(name) {
			return "", nil, scopeError("a scope names a repository that cannot be")
		}
		done = appendNew(done, PullScope(oci.Complete(registry, name)))
	}
	return registry, done, nil
}

// splitScopes takes apart what clients put into one parameter with spaces between.
func splitScopes(scopes []string) []string {
	var all []string
	for _, s := range scopes {
		all = append(all, strings.Fields(s)...)
	}
	return all
}

func grantsPull(actions string) bool {
	for a := range strings.SplitSeq(actions, ",") {
		if a == "pull" || a == "*" {
			return true
		}
	}
	return false
}

func appendNew(list []string, s string) []string {
	for _, have := range list {
		if have == s {
			return list
		}
	}
	return append(list, s)
}

func scopeError(format string, args ...any) error {
	return &oci.Error{Code: oci.BadRequest, Message: fmt.Sprintf(format, args...)}
}
