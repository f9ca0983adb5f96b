package oci

import (
	_ "crypto/sha256" // so that go-digest knows the algorithms of the specification
	_ "crypto/sha512"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
)

// registryGrammar is that of a registry's name in distribution/reference.
var registryGrammar = lazyregexp.New(`^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:.]{2,45}\])(?::[0-9]{1,5})?$`)

// ValidRegistry reports whether name can be that of a registry: a host name, an IPv4
// address or an IPv6 address in brackets, with or without a port.
func ValidRegistry(name string) bool {
	return len(name) <= MaxName && (plainHost(name) || registryGrammar().MatchString(name))
}

// plainHost reports whether name is a host name without a port, in lower-case letters and digits:
// nearly every registry's is, and each request is checked.
func plainHost(name string) bool {
	letters := 0 // in the label so far
	for i := range len(name) {
		switch c := name[i]; {
		case alphanumeric(c):
			letters++
		case c == '.' && letters > 0:
			letters = 0
		default:
			return false
		}
	}
	return letters > 0
}

// ValidRepository reports whether name can be that of a repository: components that are separated
// by slashes, each of lower-case letters and digits with separators between them. A separator is a
// dot, one or two underscores, or any number of hyphens.
func ValidRepository(name string) bool {
	if len(name) > MaxName {
		return false
	}
	for component := range strings.SplitSeq(name, "/") {
		if !validComponent(component) {
			return false
		}
	}
	return true
}

func validComponent(c string) bool {
	for {
		n := 0
		for n < len(c) && alphanumeric(c[n]) {
			n++
		}
		if n == 0 || n == len(c) {
			return n > 0
		}
		c = c[n:]
		if n = separator(c); n == 0 {
			return false
		}
		c = c[n:]
	}
}

// separator returns the length of the separator that s starts with, 0 for none.
func separator(s string) int {
	switch {
	case strings.HasPrefix(s, "__"):
		return 2
	case s[0] == '.', s[0] == '_':
		return 1
	}
	return len(s) - len(strings.TrimLeft(s, "-"))
}

// validTag reports whether s can be a tag: at most 128 letters, digits, underscores, dots and
// hyphens, of which the first is neither dot nor hyphen (OCI Distribution 1.1, "Pulling manifests").
func validTag(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case alphanumeric(c), 'A' <= c && c <= 'Z', c == '_', i > 0 && (c == '.' || c == '-'):
		default:
			return false
		}
	}
	return s != "" && len(s) <= 128
}

func alphanumeric(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// looksLikeRegistry reports whether the first component of a path means a registry, by
// the rule that every engine applies to a reference.
func looksLikeRegistry(component string) bool {
	return component == "localhost" || strings.ContainsAny(component, ".:") || withPort(component) != component
}

// withPort returns the registry that the first component of a path means. podman, buildah, skopeo and
// CRI-O cannot parse a mirror with a colon in its path, so that for them a port is written as
// "registry.example__5000". A name without a dot may be that of a repository.
func withPort(component string) string {
	host, port, found := strings.Cut(component, "__")
	if !found || port == "" || host != "localhost" && !strings.Contains(host, ".") || strings.Trim(port, "0123456789") != "" {
		return component
	}
	return host + ":" + port
}

// SplitPrefix splits a name that may begin with a registry ("ghcr.io/o/i"), as clients
// that pull by prefix send it in a scope. Without a registry the first result is empty.
func SplitPrefix(name string) (registry, repository string) {
	if first, rest, ok := strings.Cut(name, "/"); ok && looksLikeRegistry(first) {
		return withPort(first), rest
	}
	return "", name
}

// parseReference reads a tag, a digest, or "tag@digest", in which the digest alone says
// which manifest is meant.
func (req *Request) parseReference(reference string) error {
	tag, dgst, both := strings.Cut(reference, "@")
	if both && validTag(tag) {
		return req.parseDigest(dgst)
	}
	if strings.Contains(reference, ":") {
		return req.parseDigest(reference)
	}
	if !validTag(reference) {
		return &Error{Code: ManifestInvalid, Message: "the reference is neither a tag nor a digest"}
	}
	req.Tag = reference
	return nil
}

func (req *Request) parseDigest(s string) error {
	if canonical(s) {
		req.Digest = digest.Digest(s)
		return nil
	}
	d, err := digest.Parse(s)
	if err != nil {
		return &Error{Code: DigestInvalid, Message: "the digest is not valid: want sha256:… or sha512:… in lower-case hexadecimal", Err: err}
	}
	req.Digest = d
	return nil
}

// canonical reports whether s is a well-formed digest of the algorithm that nearly every one has. It
// saves the regular expressions of [digest.Parse].
func canonical(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(hex) != 64 {
		return false
	}
	for i := range len(hex) {
		if c := hex[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
