package kubelet

import (
	"errors"
	"maps"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/credential"
)

// glob is a pattern of matchImages or of a plugin's answer.
type glob struct{ host, path string }

// parseGlob reads a pattern, which has no scheme.
func parseGlob(pattern string) (glob, error) {
	u, err := url.Parse("https://" + pattern)
	if err != nil || u.Host == "" {
		return glob{}, errors.New("a pattern is not HOST or HOST/PATH")
	}
	for label := range strings.SplitSeq(withoutPort(u.Host), ".") {
		if _, err := path.Match(label, ""); err != nil {
			return glob{}, errors.New("a pattern has a wildcard that does not end")
		}
	}
	return glob{u.Host, u.Path}, nil
}

func withoutPort(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return host
}

// matches reports whether image, HOST/REPOSITORY, matches g as the kubelet compares them: the host
// by labels with wildcards, and the path as the beginning of a text.
func (g glob) matches(image string) bool {
	host, repository, _ := strings.Cut(image, "/")
	if repository != "" {
		repository = "/" + repository
	}
	return credential.MatchHost(g.host, host) && strings.HasPrefix(repository, g.path)
}

// hub is the key under which the kubelet looks for Docker Hub's login last.
const hub = "index.docker.io"

// choose returns which of the keys of a plugin's answer the kubelet would try first for image: the
// last in lexical order that matches. Keys may have a scheme and begin their path with /v1 or /v2.
func choose[T any](answer map[string]T, image string) (found T, ok bool) {
	byKey := map[string]T{}
	for key, value := range answer {
		if !strings.HasPrefix(key, "https://") && !strings.HasPrefix(key, "http://") {
			key = "https://" + key
		}
		u, err := url.Parse(key)
		if err != nil {
			continue
		}
		location := u.Path
		if strings.HasPrefix(location, "/v1/") || strings.HasPrefix(location, "/v2/") {
			location = location[len("/v1"):]
		}
		if location == "/" {
			location = ""
		}
		byKey[u.Host+location] = value
	}
	for _, key := range slices.Backward(slices.Sorted(maps.Keys(byKey))) {
		if g, err := parseGlob(key); err == nil && g.matches(image) {
			return byKey[key], true
		}
	}
	if host, _, _ := strings.Cut(image, "/"); host == "docker.io" || host == hub {
		found, ok = byKey[hub]
	}
	return found, ok
}
