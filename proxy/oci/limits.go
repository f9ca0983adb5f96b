package oci

// Limits on what is read from outside, in bytes.
const (
	// MaxManifest is the size that the specification asks registries to accept at least,
	// and the most that engines accept.
	MaxManifest = 4 << 20

	// MaxList bounds a page of tags or of referrers.
	MaxList = 8 << 20

	// MaxName bounds the name of a repository or of a registry: the specification advises
	// clients to stay below 255.
	MaxName = 255

	// maxRefusal bounds what is read of an upstream's refusal.
	maxRefusal = 64 << 10
)
