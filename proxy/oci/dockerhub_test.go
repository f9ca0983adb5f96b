package oci

import "testing"

func TestDockerHubHasOneNameAndItsShortNamesAreCompleted(t *testing.T) {
	for name, want := range map[string]string{
		"docker.io": "docker.io", "index.docker.io": "docker.io", "registry-1.docker.io": "docker.io", "Index.Docker.IO": "docker.io",
		"GHCR.io": "ghcr.io", "auth.docker.io": "auth.docker.io", "docker.io.example": "docker.io.example",
	} {
		if got := CanonicalRegistry(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	for _, tt := range []struct{ registry, repository, want string }{
		{DockerHub, "busybox", "library/busybox"}, {DockerHub, "library/busybox", "library/busybox"},
		{DockerHub, "o/i", "o/i"}, {DockerHub, "", ""}, {"ghcr.io", "busybox", "busybox"},
	} {
		if got := Complete(tt.registry, tt.repository); got != tt.want {
			t.Errorf("%s of %s becomes %s, want %s", tt.repository, tt.registry, got, tt.want)
		}
	}
}
