package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// siteName splits an argument of "site enable" into a name and the registry that it stands for.
func siteName(arg string) (name, registry string) {
	name, registry, named := strings.Cut(arg, "=")
	if !named {
		registry = oci.DockerHub
	}
	return name, registry
}

// checkNames finds mistakes in the names that the configuration would accept. known are the registries
// that it has.
func (f siteFlags) checkNames(args, known []string) error {
	for _, arg := range args {
		name, registry := siteName(arg)
		switch near := misspelt(registry); {
		case slices.Contains(publicRegistries, name):
			return fmt.Errorf("%s is the registry's own name: give it one in your domain, as %s.example.com=%s", name, strings.SplitN(name, ".", 2)[0], name)
		case near != "" && !slices.Contains(known, registry):
			return fmt.Errorf("%s looks like %s: write %s=%s; if it is a registry of its own, first add [registry.%q] to the configuration", registry, near, name, near, registry)
		case f.acceptTerms && f.directory == "" && !strings.Contains(strings.Trim(name, "."), "."):
			return fmt.Errorf("%s has no domain, and Let's Encrypt issues certificates only for names that all can look up, as docker.example.com", name)
		}
	}
	return nil
}

// knownRegistries returns the registries of the configuration, none if it cannot be read.
func (s siteEdit) knownRegistries() []string {
	c, err := s.source.Load()
	if err != nil {
		return nil
	}
	return registryNames(c)
}
