package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// Upstream is a server that the content of a registry is fetched from: the registry itself, or a
// mirror of it.
type Upstream struct {
	// URL is where the server has its API: http or https, a host, and the path before "/v2/" if
	// there is one.
	URL *url.URL

	// Prefix comes before the name of each repository at this server: "hub-proxy" for Harbor's
	// project of that name. It is empty if the names are the registry's own.
	Prefix string

	// Namespaced means that the server mirrors several registries. The query "ns=NAME" of each
	// request names the one that is meant, as in containerd's requests to mirrors.
	Namespaced bool

	// Optional means that a refusal by this server does not count as the registry's: the next one
	// is asked.
	Optional bool
}

// The words that may come before the scheme of an upstream, as in "optional+ns+https://HOST".
const (
	optionalWord   = "optional"
	namespacedWord = "ns"
)

// NewUpstream returns the upstream at u, whose path may contain "/v2" and a prefix after that.
func NewUpstream(u *url.URL) Upstream {
	at := *u
	base, prefix, _ := strings.Cut(strings.TrimSuffix(u.Path, "/")+"/", "/v2/")
	at.Path, at.RawPath = strings.TrimSuffix(base, "/"), ""
	return Upstream{URL: &at, Prefix: strings.TrimSuffix(prefix, "/")}
}

// Address returns the URL with the prefix, as a person writes it: "https://HOST/v2/PREFIX". It tells
// apart what a login is for.
func (u Upstream) Address() *url.URL {
	at := *u.URL
	if u.Prefix != "" || at.Path != "" {
		at.Path = strings.TrimSuffix(at.Path+"/v2/"+u.Prefix, "/")
	}
	return &at
}

// Name returns the text of the upstream without "optional+": two upstreams with the same name are the
// same server, asked for the same.
func (u Upstream) Name() string {
	name := u.Address().Redacted()
	if u.Namespaced {
		name = namespacedWord + "+" + name
	}
	return name
}

// String returns the upstream as a configuration has it.
func (u Upstream) String() string {
	if u.Optional {
		return optionalWord + "+" + u.Name()
	}
	return u.Name()
}

// Label returns the upstream's host and port for people and metrics, with its path if there is one:
// "harbor.corp.example/hub-proxy".
func (u Upstream) Label() string {
	label := u.URL.Host + u.URL.Path
	if u.Prefix != "" {
		label += "/" + u.Prefix
	}
	return label
}

// parseUpstream reads an upstream: "https://HOST", "https://HOST/v2/PREFIX", and before the scheme
// "ns+" or "optional+" or both.
func parseUpstream(text string) (Upstream, error) {
	words, plain, err := cutWords(text)
	if err != nil {
		return Upstream{}, err
	}
	u, err := parseURL(plain)
	if err != nil {
		return Upstream{}, err
	}
	up := NewUpstream(u)
	up.Optional, up.Namespaced = slices.Contains(words, optionalWord), slices.Contains(words, namespacedWord)
	return up, up.checkPath(u, text)
}

// cutWords splits what comes before the scheme from the URL.
func cutWords(text string) (words []string, plain string, err error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || !strings.Contains(scheme, "+") {
		return nil, text, nil
	}
	words = strings.Split(scheme, "+")
	words, scheme = words[:len(words)-1], words[len(words)-1]
	for i, word := range words {
		switch {
		case word != optionalWord && word != namespacedWord:
			return nil, "", wrong(quote(word+"+")+" is not known in front of a URL", `write "optional+https://…", "ns+https://…", or "optional+ns+https://…" for both`)
		case slices.Contains(words[:i], word):
			return nil, "", wrong(quote(word+"+")+" occurs twice in front of a URL", "remove one")
		}
	}
	return words, scheme + "://" + rest, nil
}

// checkPath refuses a path that does not say where the API is, and a prefix that is no name. given is
// the URL that was written.
func (u Upstream) checkPath(given *url.URL, text string) error {
	path := strings.Trim(given.Path, "/")
	api := slices.Contains(strings.Split(path, "/"), "v2")
	origin := given.Scheme + "://" + given.Host
	switch {
	case given.RawPath != "" || strings.Contains(given.Path, "//") || !plainPath(u.URL.Path):
		return wrong(quote(text)+" has a path with characters that no registry's API has", fmt.Sprintf("write %q, with the name of a repository in the place of PREFIX", origin+"/v2/PREFIX"))
	case path != "" && !api && oci.ValidRepository(path):
		return wrong(quote(text)+` has a path without "/v2"`, fmt.Sprintf(
			"write %q if the names of all repositories begin with %s/ there, and %q if the API is below that path", origin+"/v2/"+path, path, origin+"/"+path+"/v2"))
	case path != "" && !api:
		return wrong(quote(text)+` has a path without "/v2"`, fmt.Sprintf("write %q if the API is below that path", origin+"/"+path+"/v2"))
	case u.Prefix != "" && !oci.ValidRepository(u.Prefix):
		return wrong(quote(text)+` has something after "/v2/" that is not the beginning of a repository's name`, "write lower-case names with slashes between them")
	case u.Namespaced && u.Prefix != "":
		return wrong(quote(text)+" has a prefix, and a mirror that takes ns needs none", `remove "ns+" or what follows "/v2"`)
	}
	return nil
}

// plainPath reports whether each part of a path is a name of unreserved characters.
func plainPath(path string) bool {
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if part == "." || part == ".." || strings.Trim(part, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._~-") != "" {
			return false
		}
	}
	return true
}
