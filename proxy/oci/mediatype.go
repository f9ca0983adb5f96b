package oci

import (
	"mime"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// The media types of Docker's own manifests, from which the OCI ones descend.
const (
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// ManifestTypes returns the media types to accept for a client that does not say what it
// accepts: a registry that is asked without Accept may send schema 1.
func ManifestTypes() []string {
	return []string{v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, DockerIndex, DockerManifest}
}

// MediaType returns the media type of a Content-Type in lower case and without its
// parameters, empty if it is malformed.
func MediaType(contentType string) string {
	switch contentType { // as they mostly come
	case v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, DockerIndex, DockerManifest:
		return contentType
	}
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		// Parameters that cannot be read take nothing from the type before them.
		t, _, _ = strings.Cut(contentType, ";")
		if t, _, err = mime.ParseMediaType(t); err != nil {
			return ""
		}
	}
	return t
}

// IsManifest reports whether a Content-Type says what kind of manifest something is.
// Plain JSON, text and HTML do not, and schema 1 is none that is served.
func IsManifest(contentType string) bool {
	return strings.HasPrefix(MediaType(contentType), "application/vnd.") && !IsSchema1(contentType)
}

// IsIndex reports whether a Content-Type is that of an index, of OCI's or Docker's kind.
func IsIndex(contentType string) bool {
	t := MediaType(contentType)
	return t == v1.MediaTypeImageIndex || t == DockerIndex
}

// IsSchema1 reports whether a Content-Type is that of Docker's first, obsolete manifests.
func IsSchema1(contentType string) bool {
	return strings.Contains(MediaType(contentType), ".distribution.manifest.v1+")
}
