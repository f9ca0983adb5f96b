package quirky

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"math/rand/v2"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types, which the OCI ones descend from.
const (
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// Blob is a config or a layer.
type Blob struct {
	MediaType string
	Bytes     []byte
	Digest    digest.Digest
}

// Image is a manifest or an index, and what it names. The same arguments make
// the same bytes, always.
type Image struct {
	MediaType    string
	ArtifactType string
	Bytes        []byte
	Digest       digest.Digest
	Subject      digest.Digest
	Platform     v1.Platform

	// Blobs are the config and then the layers, of a manifest.
	Blobs []Blob

	// Images are those of an index.
	Images []Image
}

// NewImage makes a manifest with a config and real layers: each a tar.gz with
// one file of so many bytes that do not compress. Docker's media types where
// docker is set. The platform is linux/amd64, or linux/arm64 with seed "arm64".
func NewImage(docker bool, seed string, layers ...int) Image {
	manifestType, configType, layerType := v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, v1.MediaTypeImageLayerGzip
	if docker {
		manifestType, configType, layerType = dockerManifest, dockerConfig, dockerLayer
	}
	platform := v1.Platform{OS: "linux", Architecture: "amd64"}
	if seed == "arm64" {
		platform.Architecture = seed
	}
	config := v1.Image{Platform: platform, RootFS: v1.RootFS{Type: "layers"}}
	config.Config.Cmd = []string{"/" + seed}
	blobs := make([]Blob, 1, 1+len(layers))
	for i, size := range layers {
		packed, diffID := layer(seed+string(rune('a'+i)), size)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		blobs = append(blobs, newBlob(layerType, packed))
	}
	blobs[0] = newBlob(configType, marshal(config))
	m := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType,
		Config: blobs[0].descriptor(), Layers: []v1.Descriptor{},
	}
	for _, b := range blobs[1:] {
		m.Layers = append(m.Layers, b.descriptor())
	}
	image := Raw(manifestType, marshal(m))
	image.Blobs, image.Platform = blobs, platform
	return image
}

// NewIndex makes an index of images, with Docker's media type where docker is set.
func NewIndex(docker bool, images ...Image) Image {
	mediaType := v1.MediaTypeImageIndex
	if docker {
		mediaType = dockerIndex
	}
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType}
	for _, i := range images {
		d := i.descriptor()
		d.Platform = &i.Platform
		index.Manifests = append(index.Manifests, d)
	}
	image := Raw(mediaType, marshal(index))
	image.Images = images
	return image
}

// Raw is a manifest of any bytes, right or wrong, with the Content-Type that it
// is served as.
func Raw(mediaType string, body []byte) Image {
	return Image{MediaType: mediaType, Bytes: body, Digest: digest.FromBytes(body)}
}

// NewReferrer makes an artifact that refers to subject: a signature, an SBOM.
func NewReferrer(subject Image, artifactType, seed string) Image {
	empty := newBlob(v1.MediaTypeEmptyJSON, []byte("{}"))
	content := newBlob("application/octet-stream", Bytes(seed, 100))
	d := subject.descriptor()
	image := Raw(v1.MediaTypeImageManifest, marshal(v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: empty.descriptor(), Layers: []v1.Descriptor{content.descriptor()}, Subject: &d,
	}))
	image.ArtifactType, image.Subject, image.Blobs = artifactType, subject.Digest, []Blob{empty, content}
	return image
}

// Bytes are n bytes that do not compress, the same for the same seed.
func Bytes(seed string, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8(sha256.Sum256([]byte(seed)))
	_, _ = r.Read(b)
	return b
}

// layer packs one file into a tar.gz. It is stored, not compressed: the tests
// cut and flip it at offsets, and time spent compressing noise is lost.
func layer(seed string, size int) (packed []byte, diffID digest.Digest) {
	var plain, zipped bytes.Buffer
	t := tar.NewWriter(&plain)
	_ = t.WriteHeader(&tar.Header{Name: seed, Mode: 0o755, Size: int64(size), ModTime: time.Unix(0, 0)})
	_, _ = t.Write(Bytes(seed, size))
	_ = t.Close()
	z, _ := gzip.NewWriterLevel(&zipped, gzip.NoCompression)
	_, _ = z.Write(plain.Bytes())
	_ = z.Close()
	return zipped.Bytes(), digest.FromBytes(plain.Bytes())
}

func newBlob(mediaType string, body []byte) Blob {
	return Blob{MediaType: mediaType, Bytes: body, Digest: digest.FromBytes(body)}
}

func (b Blob) descriptor() v1.Descriptor {
	return v1.Descriptor{MediaType: b.MediaType, Digest: b.Digest, Size: int64(len(b.Bytes))}
}

func (i Image) descriptor() v1.Descriptor {
	return v1.Descriptor{MediaType: i.MediaType, ArtifactType: i.ArtifactType, Digest: i.Digest, Size: int64(len(i.Bytes))}
}

// marshal encodes what cannot fail to be encoded: structures of our own.
func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
