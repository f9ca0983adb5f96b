// Package testimage is an image that sidemirror serves itself, under a name that no registry has. An
// engine that can pull it has asked sidemirror.
package testimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"runtime"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Repository is the repository of the image, in every registry and with every tag. Docker Hub has no
// namespaces with a hyphen. A dot would not do: a path that begins with a host name is one of that
// registry.
const Repository = "sidemirror-doctor/test"

// image is the image, for the platform of this program.
type image struct {
	manifest v1.Descriptor
	content  map[digest.Digest][]byte
}

var built = sync.OnceValue(build)

// Manifest returns the descriptor of the manifest.
func Manifest() v1.Descriptor { return built().manifest }

// Content returns the manifest, the configuration or the layer, and whether the image has content of
// that digest.
func Content(d digest.Digest) ([]byte, bool) {
	content, found := built().content[d]
	return content, found
}

func build() image {
	i := image{content: make(map[digest.Digest][]byte)}
	files := archive("sidemirror.txt", "This image was served by sidemirror, and by no registry.\n")
	layer := i.add(v1.MediaTypeImageLayerGzip, compress(files))
	config := i.add(v1.MediaTypeImageConfig, encode(v1.Image{
		Platform: v1.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(files)}},
	}))
	i.manifest = i.add(v1.MediaTypeImageManifest, encode(v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    config,
		Layers:    []v1.Descriptor{layer},
	}))
	return i
}

func (i image) add(mediaType string, content []byte) v1.Descriptor {
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	i.content[d.Digest] = content
	return d
}

// The writers below fail only if what they write to does, which a buffer does not.

func archive(name, text string) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), ModTime: time.Unix(0, 0)})
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return out.Bytes()
}

func compress(content []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(content)
	_ = w.Close()
	return out.Bytes()
}

func encode(v any) []byte {
	content, _ := json.Marshal(v)
	return content
}
