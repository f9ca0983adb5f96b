package main

import (
	"slices"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/internal/spelling"
	"github.com/sidemirror/sidemirror/proxy/credential"
)

// publicRegistries are those that are suggested if the daemon serves every registry, and with which
// a misspelt one must not be confused.
var publicRegistries = []string{
	"cgr.dev", "docker.elastic.co", "docker.io", "ghcr.io", "gcr.io", "icr.io", "lscr.io", "mcr.microsoft.com", "nvcr.io",
	"public.ecr.aws", "quay.io", "registry.access.redhat.com", "registry.gitlab.com", "registry.k8s.io", "registry.redhat.io",
}

// misspelt returns the public registry that registry looks like, "" if it is one or looks like none.
// The owner of such a name may collect passwords.
func misspelt(registry string) string {
	near := spelling.Nearest(registry, publicRegistries)
	if near == "" || near == registry || spelling.Distance(registry, near) > 2 {
		return ""
	}
	return near
}

// registryNames returns the registries that the configuration names, in their order.
func registryNames(c *config.Config) (names []string) {
	for _, r := range c.Registries {
		if r.Name != config.Wildcard {
			names = append(names, r.Name)
		}
	}
	return names
}

// servesAll reports whether the daemon serves registries that the configuration does not name.
func servesAll(c *config.Config) bool {
	return slices.ContainsFunc(c.Registries, func(r config.Registry) bool { return r.Name == config.Wildcard })
}

// loginNames returns the hosts that a login can be for: those that registries are fetched from.
func loginNames(c *config.Config) (names []string) {
	for _, r := range c.Registries {
		for _, u := range r.Upstreams {
			if host, _ := credential.KeyOf(u.Address()); host != "" && !slices.Contains(names, host) {
				names = append(names, host)
			}
		}
	}
	return names
}

// didYouMeanRegistry returns a hint if registry is similar to one that the daemon serves, or "".
func didYouMeanRegistry(c *config.Config, registry string, names []string) string {
	if slices.Contains(names, registry) {
		return ""
	}
	if servesAll(c) {
		names = slices.Concat(names, publicRegistries)
		if slices.Contains(publicRegistries, registry) {
			return ""
		}
	}
	return didYouMean(registry, names)
}
