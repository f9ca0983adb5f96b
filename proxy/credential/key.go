package credential

import (
	"fmt"
	"regexp"
	"strings"
)

// hub is the name that references have for Docker Hub, and hubAliases the host
// names that docker and others file its logins under.
const hub = "docker.io"

var hubAliases = map[string]bool{"index.docker.io": true, "registry-1.docker.io": true}

// hubKey is what `docker login` writes; it wins where a file has several for the Hub.
const hubKey = "https://index.docker.io/v1/"

var (
	// The grammars of distribution/reference, to which a key must keep so that no
	// text with a password in it (https://me:secret@host) is ever shown as one.
	registryForm  = regexp.MustCompile(`^(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:]+\])(?::[0-9]{1,5})?$`)
	namespaceForm = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
)

// keyLimit is more than a repository name (255) and a host name (253) may have.
const keyLimit = 1024

// ParseKey reads what a login is filed under: "quay.io", "quay.io/org",
// "registry.corp.example:5000", and docker's older forms "https://host",
// "https://host/v1/" and "host/v2", which mean the host. The registry comes back
// in lower case, Docker Hub under any of its names as "docker.io". The namespace
// is empty or whole components of a repository's path.
func ParseKey(key string) (registry, namespace string, err error) {
	if len(key) > keyLimit {
		return "", "", fmt.Errorf("a registry's name of %d characters is longer than %d", len(key), keyLimit)
	}
	rest, hadScheme := cutScheme(key)
	registry, namespace, _ = strings.Cut(rest, "/")
	registry = canonical(registry)
	namespace = strings.TrimSuffix(namespace, "/")
	version, api, _ := strings.Cut(namespace, "/")
	if version == "v1" || version == "v2" {
		if api != "" && hadScheme {
			// docker keeps ".../v1/access-token" and ".../v1/refresh-token" beside the login.
			return "", "", fmt.Errorf("%s is part of a registry's API and not a namespace", namespace)
		}
		if api == "" {
			namespace = ""
		}
	}
	if !registryForm.MatchString(registry) || namespace != "" && !namespaceForm.MatchString(namespace) {
		// Not quoted: it may hold a password.
		return "", "", fmt.Errorf("not a registry's name: want HOST, HOST:PORT or HOST/NAMESPACE, as in quay.io/org")
	}
	return registry, namespace, nil
}

func cutScheme(key string) (rest string, had bool) {
	for _, scheme := range []string{"https://", "http://"} {
		if len(key) >= len(scheme) && strings.EqualFold(key[:len(scheme)], scheme) {
			return key[len(scheme):], true
		}
	}
	return key, false
}

// canonical is the one spelling of a registry that keys and look-ups are compared in.
func canonical(registry string) string {
	registry = strings.ToLower(registry)
	if hubAliases[registry] {
		return hub
	}
	return registry
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
