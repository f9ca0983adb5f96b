package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Shape is what an image is made of.
type Shape struct {
	// Index makes an index of two platforms, linux on this machine's architecture
	// and on another, else a single manifest of the first.
	Index bool

	// Attested adds to the index an attestation as BuildKit makes one by default: a manifest
	// that names the first one by annotations and holds its provenance. It needs Index.
	Attested bool

	// Docker has Docker's media types, else OCI's.
	Docker bool

	// Size of the largest layer, in bytes; its content does not compress.
	Size int

	// Layers is how many layers of Size there are, 1 if it is 0.
	Layers int

	// Hello, if not empty, is a static program put in as /hello and run by default.
	Hello []byte
}

// Image is an image as it was pushed. Digests are "sha256:…".
type Image struct {
	Repository, Tag string

	// Digest is that of what the tag names: the index or the single manifest.
	Digest string

	// Platform holds the digests of what an engine of this machine's platform fetches after an
	// index: manifest, configuration and layers.
	Platform []string

	// All holds every digest there is, the index too.
	All []string

	// Config is the digest of that platform's configuration: a docker image's ID.
	Config string
}

// Push makes an image and pushes it. Two images of one shape differ.
func (r *Registry) Push(t testing.TB, repository, tag string, s Shape) Image {
	t.Helper()
	pushed := Image{Repository: repository, Tag: tag}
	native, foreign := runtime.GOARCH, "riscv64"
	first := s.image(t, native)
	var whole remote.Taggable = first
	pushed.Platform = contents(t, first)
	pushed.All = pushed.Platform
	pushed.Digest = pushed.Platform[0]
	pushed.Config = pushed.Platform[1]
	if s.Index {
		second := s.image(t, foreign)
		index := mutate.IndexMediaType(empty.Index, s.media(types.OCIImageIndex, types.DockerManifestList))
		index = mutate.AppendManifests(index,
			mutate.IndexAddendum{Add: first, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: native}}},
			mutate.IndexAddendum{Add: second, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: foreign}}})
		if s.Attested {
			index = mutate.AppendManifests(index, attestation(t, pushed.Digest))
		}
		hash, err := index.Digest()
		if err != nil {
			t.Fatal(err)
		}
		pushed.Digest = hash.String()
		pushed.All = append(append([]string{pushed.Digest}, pushed.Platform...), contents(t, second)...)
		whole = index
	}
	checks := []name.Option{name.StrictValidation}
	if r.URL.Scheme == "http" {
		checks = append(checks, name.Insecure)
	}
	target, err := name.NewTag(r.Reference(repository)+":"+tag, checks...)
	if err != nil {
		t.Fatal(err)
	}
	options := []remote.Option{remote.WithContext(t.Context())}
	if r.client.Transport != nil {
		options = append(options, remote.WithTransport(r.client.Transport))
	}
	if r.User != "" {
		options = append(options, remote.WithAuth(&authn.Basic{Username: r.User, Password: r.Password}))
	}
	if err := remote.Push(target, whole, options...); err != nil {
		t.Fatalf("pushing %s: %v", target, err)
	}
	return pushed
}

func (s Shape) media(oci, docker types.MediaType) types.MediaType {
	if s.Docker {
		return docker
	}
	return oci
}

func (s Shape) image(t testing.TB, architecture string) v1.Image {
	t.Helper()
	// Its own in every image too, for an engine does not fetch what it has.
	small := append([]byte(architecture), rand.Text()...)
	layers := []v1.Layer{s.layer(t, "small", small)}
	noise := make([]byte, s.Size)
	for i := range max(s.Layers, 1) {
		rand.Read(noise)
		layers = append(layers, s.layer(t, fmt.Sprintf("noise-%d", i), noise))
	}
	if len(s.Hello) > 0 {
		// An ELF file does not mind what comes after it.
		layers = append(layers, s.layer(t, "hello", append(slices.Clone(s.Hello), rand.Text()...)))
	}
	image := mutate.MediaType(empty.Image, s.media(types.OCIManifestSchema1, types.DockerManifestSchema2))
	image = mutate.ConfigMediaType(image, s.media(types.OCIConfigJSON, types.DockerConfigJSON))
	image, err := mutate.AppendLayers(image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", architecture
	file.Config.Entrypoint = []string{"/hello"}
	image, err = mutate.ConfigFile(image, file)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// layer makes a layer of one file; the folders of path are left to the engine.
func (s Shape) layer(t testing.TB, path string, content []byte) v1.Layer {
	t.Helper()
	var packed bytes.Buffer
	// Noise does not compress, and compressing it costs more than the rest.
	zip, err := gzip.NewWriterLevel(&packed, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewWriter(zip)
	header := &tar.Header{Name: path, Mode: 0o755, Size: int64(len(content))}
	if err := archive.WriteHeader(header); err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(packed.Bytes())), nil
	}, tarball.WithMediaType(s.media(types.OCILayer, types.DockerLayer)))
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

// contents lists an image's digests: manifest, configuration, layers.
func contents(t testing.TB, image v1.Image) []string {
	t.Helper()
	hash, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := image.Manifest()
	if err != nil {
		t.Fatal(fmt.Errorf("reading a made manifest: %w", err))
	}
	digests := []string{hash.String(), manifest.Config.Digest.String()}
	for _, layer := range manifest.Layers {
		digests = append(digests, layer.Digest.String())
	}
	return digests
}

// attestation is a manifest with the provenance of the image whose manifest has a digest
// (BuildKit, docs/attestations/attestation-storage.md).
func attestation(t testing.TB, digest string) mutate.IndexAddendum {
	t.Helper()
	const predicate = "https://slsa.dev/provenance/v0.2"
	statement := fmt.Sprintf(`{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": %q, "subject": [{"name": "image", "digest": {"sha256": %q}}], "predicate": {"builder": {"id": ""}}}`,
		predicate, strings.TrimPrefix(digest, "sha256:"))
	image, err := mutate.Append(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), mutate.Addendum{
		Layer:       static.NewLayer([]byte(statement), "application/vnd.in-toto+json"),
		Annotations: map[string]string{"in-toto.io/predicate-type": predicate},
	})
	if err != nil {
		t.Fatal(err)
	}
	return mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{
		Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"},
		Annotations: map[string]string{
			"vnd.docker.reference.type":   "attestation-manifest",
			"vnd.docker.reference.digest": digest,
		},
	}}
}
