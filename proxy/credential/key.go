package credential

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// keyLimit bounds a key, in characters: more than the two names in it may have.
const keyLimit = 4 * oci.MaxName

var errKey = errors.New("not a registry's name: want HOST, HOST:PORT or HOST/NAMESPACE, as in quay.io/org")

// ParseKey reads the key under which a login is stored: "quay.io", "quay.io/org",
// "registry.corp.example:5000", and docker's older forms "https://host",
// "https://host/v1/" and "host/v2", which mean the host. The registry is returned in
// lower case, Docker Hub under any of its names as "docker.io". The namespace is empty
// or whole components of a repository's path. A key must obey the grammars of both, so
// that no text with a password in it (https://me:secret@host) is ever shown as a key.
func ParseKey(key string) (registry, namespace string, err error) {
	if len(key) > keyLimit {
		return "", "", fmt.Errorf("a registry's name of %d characters is longer than %d", len(key), keyLimit)
	}
	rest, hadScheme := cutScheme(key)
	registry, namespace, _ = strings.Cut(rest, "/")
	registry = oci.CanonicalRegistry(registry)
	namespace = strings.TrimSuffix(namespace, "/")
	version, api, _ := strings.Cut(namespace, "/")
	if version == "v1" || version == "v2" {
		if api != "" && hadScheme {
			// docker stores ".../v1/access-token" and ".../v1/refresh-token" next to the login.
			return "", "", fmt.Errorf("%s is part of a registry's API and not a namespace", namespace)
		}
		if api == "" {
			namespace = ""
		}
	}
	if !oci.ValidRegistry(registry) || namespace != "" && !oci.ValidRepository(namespace) {
		// Not quoted: it may hold a password.
		return "", "", errKey
	}
	return registry, namespace, nil
}

// fileKey is a key of a credential file.
type fileKey struct {
	registry, namespace string
	wildcard            bool // registry is a pattern of [MatchHost]
}

// parseFileKey reads a key of a credential file: what ParseKey reads, and wildcards in the
// registry's name. A path after a scheme counts for nothing, as for docker and containers/image.
func parseFileKey(key string) (fileKey, error) {
	rest, hadScheme := cutScheme(key)
	host, path, _ := strings.Cut(rest, "/")
	path = strings.Trim(path, "/")
	if strings.ContainsAny(host, "*[") && !strings.HasPrefix(host, "[") {
		if len(key) > keyLimit || !ValidPattern(host) || path != "" && !oci.ValidRepository(path) {
			return fileKey{}, errKey
		}
		if hadScheme || path == "v1" || path == "v2" {
			path = ""
		}
		return fileKey{registry: strings.ToLower(host), namespace: path, wildcard: true}, nil
	}
	// docker stores ".../v1/access-token" next to the login, which ParseKey refuses.
	if hadScheme && !strings.HasPrefix(path, "v1/") && !strings.HasPrefix(path, "v2/") {
		key = host
	}
	registry, namespace, err := ParseKey(key)
	return fileKey{registry: registry, namespace: namespace}, err
}

func cutScheme(key string) (rest string, had bool) {
	for _, scheme := range []string{"https://", "http://"} {
		if len(key) >= len(scheme) && strings.EqualFold(key[:len(scheme)], scheme) {
			return key[len(scheme):], true
		}
	}
	return key, false
}

// within reports whether repository is namespace or lies in it.
func within(repository, namespace string) bool {
	rest, ok := strings.CutPrefix(repository, namespace)
	return ok && (namespace == "" || rest == "" || rest[0] == '/')
}

func joinKey(registry, namespace string) string {
	if namespace == "" {
		return registry
	}
	return registry + "/" + namespace
}
