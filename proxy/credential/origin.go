package credential

import (
	"context"
	"net/url"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// KeyOf returns the key under which the login for an upstream is stored: the upstream's own
// host and port, Docker Hub's as "docker.io", and the path that comes before a repository's
// name, without the "v2" in it. A login belongs to that origin, whichever registry the upstream serves.
func KeyOf(upstream *url.URL) (registry, namespace string) {
	below, prefix, _ := strings.Cut(strings.TrimSuffix(upstream.Path, "/")+"/", "/v2/")
	path := strings.Trim(below, "/") + "/" + strings.Trim(prefix, "/")
	return oci.CanonicalRegistry(upstream.Host), strings.Trim(path, "/")
}

// IsFor reports whether upstream is at the host of the registry called name, so that the login
// for that registry is for it.
func IsFor(upstream *url.URL, name string) bool {
	name = oci.CanonicalRegistry(name)
	host, _ := KeyOf(upstream)
	return host == name || otherSpelling(upstream) == name
}

// LookupFor returns the credential that source has for a repository of upstream: the one
// stored under the key of the upstream's origin, and never the one of the registry that it
// serves.
func LookupFor(ctx context.Context, source Source, upstream *url.URL, repository string) (Credential, error) {
	registry, namespace := KeyOf(upstream)
	if namespace != "" {
		repository = strings.TrimSuffix(namespace+"/"+repository, "/")
	}
	c, err := source.Lookup(ctx, registry, repository)
	if err != nil || !c.IsZero() {
		return c, err
	}
	if other := otherSpelling(upstream); other != "" {
		return source.Lookup(ctx, other, repository)
	}
	return Credential{}, nil
}

// otherSpelling returns the host of an upstream that is written with its default port, without
// it; "" for another upstream.
func otherSpelling(upstream *url.URL) string {
	port := map[string]string{"https": "443", "http": "80"}[upstream.Scheme]
	if upstream.Port() != port {
		return ""
	}
	return oci.CanonicalRegistry(strings.TrimSuffix(upstream.Host, ":"+port))
}
