package oci

import (
	_ "crypto/sha256" // so that go-digest knows the algorithms of the specification
	_ "crypto/sha512"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
)

// The grammars of OCI Distribution 1.1, "Pulling manifests", and of a registry's
// name in distribution/reference. Go's regular expressions match in linear time.
var (
	repositoryGrammar = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagGrammar        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	registryGrammar   = regexp.MustCompile(`^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:.]{2,45}\])(?::[0-9]{1,5})?$`)
)

// ValidRegistry reports whether name can be that of a registry: a host name, an IPv4
// address or an IPv6 address in brackets, with or without a port.
func ValidRegistry(name string) bool {
	return len(name) <= MaxName && registryGrammar.MatchString(name)
}

// ValidRepository reports whether name can be that of a repository.
func ValidRepository(name string) bool {
	return len(name) <= MaxName && repositoryGrammar.MatchString(name)
}

// looksLikeRegistry reports whether the first component of a path means a registry, by
// the rule that every engine applies to a reference.
func looksLikeRegistry(component string) bool {
	return component == "localhost" || strings.ContainsAny(component, ".:")
}

// SplitPrefix splits a name that may begin with a registry ("ghcr.io/o/i"), as clients
// that pull by prefix send it in a scope. Without a registry the first result is empty.
func SplitPrefix(name string) (registry, repository string) {
	if first, rest, ok := strings.Cut(name, "/"); ok && looksLikeRegistry(first) {
		return first, rest
	}
	return "", name
}

// parseReference reads a tag, a digest, or "tag@digest", in which the digest alone says
// which manifest is meant.
func (req *Request) parseReference(reference string) error {
	tag, dgst, both := strings.Cut(reference, "@")
	if both && tagGrammar.MatchString(tag) {
		return req.parseDigest(dgst)
	}
	if strings.Contains(reference, ":") {
		return req.parseDigest(reference)
	}
	if !tagGrammar.MatchString(reference) {
		return &Error{Code: ManifestInvalid, Message: "the reference is neither a tag nor a digest"}
	}
	req.Tag = reference
	return nil
}

func (req *Request) parseDigest(s string) error {
	d, err := digest.Parse(s)
	if err != nil {
		return &Error{Code: DigestInvalid, Message: "the digest is not valid: want sha256:… or sha512:… in lower-case hexadecimal", Err: err}
	}
	req.Digest = d
	return nil
}
