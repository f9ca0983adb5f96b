package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
)

const mib = 1 << 20

// blob is content that is generated when it is read, so that gigabytes need neither disk nor memory.
type blob struct {
	digest string
	size   int64
	stamp  uint64
	data   []byte // the content itself, if it is small
}

// page is repeated through every blob. Each copy is stamped with the blob's number and its own.
var page = func() []byte {
	p := make([]byte, 64<<10)
	_, _ = rand.NewChaCha8([32]byte{'s', 'i', 'd', 'e'}).Read(p) // it never fails
	return p
}()

var stamps atomic.Uint64

// newBlob makes a blob that differs from all others.
func newBlob(size int64) *blob {
	b := &blob{size: size, stamp: stamps.Add(1)}
	h := sha256.New()
	_, _ = io.Copy(h, b.reader()) // neither of the two can fail
	b.digest = "sha256:" + hex.EncodeToString(h.Sum(nil))
	return b
}

func dataBlob(data []byte) *blob {
	return &blob{digest: fmt.Sprintf("sha256:%x", sha256.Sum256(data)), size: int64(len(data)), data: data}
}

func (b *blob) reader() *blobReader { return &blobReader{b: b} }

// blobReader implements [io.ReadSeeker].
type blobReader struct {
	b      *blob
	offset int64
}

// Read implements [io.Reader].
func (r *blobReader) Read(p []byte) (int, error) {
	if r.offset >= r.b.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), r.b.size-r.offset)]
	n := 0
	if r.b.data != nil {
		n = copy(p, r.b.data[r.offset:])
	} else {
		for n < len(p) {
			n += r.b.fill(p[n:], r.offset+int64(n))
		}
	}
	r.offset += int64(n)
	return n, nil
}

// fill copies the blob's bytes at offset, at most to the end of the page, and returns how many.
func (b *blob) fill(p []byte, offset int64) int {
	at := int(offset % int64(len(page)))
	n := copy(p, page[at:])
	if at < 16 {
		var stamp [16]byte
		binary.BigEndian.PutUint64(stamp[:], b.stamp)
		binary.BigEndian.PutUint64(stamp[8:], uint64(offset/int64(len(page))))
		copy(p[:n], stamp[at:])
	}
	return n
}

// Seek implements [io.Seeker].
func (r *blobReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.b.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the start")
	}
	r.offset = offset
	return offset, nil
}

// image is one platform's image.
type image struct {
	tag              string
	manifest, config *blob
	layers           []*blob
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// newImages makes n images of one layer of size bytes each. A server that has seen an image's manifest
// may fetch all of its layers when one is asked for, and then the others are not cold.
func newImages(n int, size int64) []*image {
	var images []*image
	for i := range n {
		images = append(images, newImage(fmt.Sprintf("v%d", i), 1, size))
	}
	return images
}

// newImage makes an image of n layers of size bytes each.
func newImage(tag string, n int, size int64) *image {
	i := &image{tag: tag, config: dataBlob([]byte(`{"architecture":"amd64","os":"linux","config":{"Labels":{"tag":"` + tag + `"}}}`))}
	for range n {
		i.layers = append(i.layers, newBlob(size))
	}
	i.seal()
	return i
}

// seal makes the manifest of an image that has its configuration and layers.
func (i *image) seal() {
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int64  `json:"size"`
	}
	m := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}{SchemaVersion: 2, MediaType: manifestType}
	m.Config = descriptor{"application/vnd.oci.image.config.v1+json", i.config.digest, i.config.size}
	for _, b := range i.layers {
		m.Layers = append(m.Layers, descriptor{"application/vnd.oci.image.layer.v1.tar+gzip", b.digest, b.size})
	}
	data, err := json.Marshal(m)
	if err != nil {
		panic(err) // a struct of strings and numbers
	}
	i.manifest = dataBlob(data)
}
