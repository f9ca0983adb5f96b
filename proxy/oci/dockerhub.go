package oci

import "strings"

// The names of Docker Hub.
const (
	// DockerHub is the registry as references name it. Its repositories of one component
	// are completed with "library/".
	DockerHub = "docker.io"

	DockerHubUpstream = "registry-1.docker.io" // where its content is fetched
	DockerHubRealm    = "auth.docker.io"       // its token server

	// DockerHubLogin is the key under which `docker login` stores its login.
	DockerHubLogin = "https://index.docker.io/v1/"
)

// CanonicalRegistry returns the one spelling by which registries are compared: lower
// case, and "docker.io" for each host name of Docker Hub.
func CanonicalRegistry(name string) string {
	name = strings.ToLower(name)
	if name == "index.docker.io" || name == DockerHubUpstream {
		return DockerHub
	}
	return name
}

// Complete returns repository with "library/" before it if registry is Docker Hub and the
// name has one component, and otherwise unchanged.
func Complete(registry, repository string) string {
	if registry == DockerHub && repository != "" && !strings.Contains(repository, "/") {
		return "library/" + repository
	}
	return repository
}
