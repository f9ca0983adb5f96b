package auth

import (
	"fmt"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// maxScopes bounds the scopes of one request to sidemirror's token endpoint.
const maxScopes = 16

// PullScope returns the scope that pulling from repository needs. It is made from the
// path of the request and never copied from a challenge: that of ghcr.io's /v2/ names a
// sample repository.
func PullScope(repository string) string {
	if repository == "" {
		return ""
	}
	return "repository:" + repository + ":pull"
}

// ScopeRepository returns the repository of a scope that [CompleteScopes] has returned.
func ScopeRepository(scope string) string {
	return strings.TrimSuffix(strings.TrimPrefix(scope, "repository:"), ":pull")
}

// CompleteScopes turns the scopes that a client of relay mode asks for into those to ask
// its upstream for: with repositories as the upstream names them, completed with
// "library/" for Docker Hub, each once (ciiiii#79 sent two), and with no action except
// pull. registry is the one that the request itself names. If the scopes are prefixed
// with a registry's name, as clients that pull by prefix send them, CompleteScopes
// returns that registry instead; all of them must name the same one.
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
				return "", nil, oci.NotServed(of)
			}
			if prefix != "" && prefix != of {
				return "", nil, scopeError("the scopes name two registries")
			}
			prefix, registry, name = of, of, repository
		}
		if !oci.ValidRepository(name) {
			return "", nil, scopeError("a scope names a repository whose name is not valid")
		}
		done = appendNew(done, PullScope(oci.Complete(registry, name)))
	}
	return registry, done, nil
}

// splitScopes splits scopes that a client put into one parameter, separated by spaces.
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
