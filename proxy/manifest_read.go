package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sidemirror/sidemirror/proxy/access"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// manifest is a manifest as an upstream has it, to the byte. body is nil if only the
// description was asked for.
type manifest struct {
	body      []byte
	size      int64
	digest    digest.Digest
	mediaType string             // the Content-Type as it came
	warning   string             // of the upstream for the client, see readWarnings
	from      *upstream.Upstream // nil for a stored one
	at        time.Time          // when the upstream was asked in the identity of the caller
	stale     bool               // no upstream could say whether the tag still means it
}

// readManifest reads and checks an upstream's 200. It returns nil if the response to a HEAD
// lacks something, so that the content must be asked for.
func readManifest(resp *http.Response, method string, want digest.Digest) (*manifest, error) {
	defer resp.Body.Close()
	m := &manifest{
		size: resp.ContentLength, digest: want, mediaType: resp.Header.Get("Content-Type"), warning: readWarnings(resp.Header),
	}
	header := resp.Header.Get("Docker-Content-Digest")
	if method == http.MethodHead {
		d, err := digest.Parse(header)
		if err != nil || m.size <= 0 || m.size > oci.MaxManifest || !oci.IsManifest(m.mediaType) || (want != "" && d != want) {
			return nil, nil
		}
		m.digest = d
		return m, nil
	}
	var err error
	if m.body, err = readAtMost(resp.Body, oci.MaxManifest); err != nil {
		return nil, err
	}
	if m.size >= 0 && m.size != int64(len(m.body)) {
		return nil, errors.New("a manifest whose length is not the one announced")
	}
	m.size = int64(len(m.body))
	if oci.IsSchema1(m.mediaType) {
		return nil, errSchema1
	}
	return m, m.check(header)
}

// check verifies the content against the digest that was asked for or else the one that
// header names, and finds the media type.
func (m *manifest) check(header string) error {
	proven := m.digest != ""
	if !proven {
		m.digest = digest.FromBytes(m.body)
		if d, err := digest.Parse(header); err == nil {
			m.digest, proven = d, true
		}
	}
	if m.digest.Algorithm().FromBytes(m.body) != m.digest {
		return errors.New("a manifest that does not match its digest")
	}
	return m.findType(proven)
}

// findType settles the media type: the upstream's Content-Type as it came, and if that says
// nothing, what the content says of itself. Any JSON object that the upstream calls a
// manifest is one: artifacts have kinds of their own. proven says that its digest was known.
func (m *manifest) findType(proven bool) error {
	var content struct {
		SchemaVersion json.RawMessage `json:"schemaVersion"`
		MediaType     json.RawMessage `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Layers        json.RawMessage `json:"layers"`
		FSLayers      json.RawMessage `json:"fsLayers"`
		Config        json.RawMessage `json:"config"`
		Errors        json.RawMessage `json:"errors"`
	}
	if err := json.Unmarshal(m.body, &content); err != nil {
		return errNoManifest
	}
	if string(content.SchemaVersion) == "1" && content.FSLayers != nil {
		return errSchema1
	}
	var mediaType string
	_ = json.Unmarshal(content.MediaType, &mediaType) // of another type it says nothing
	describes := content.SchemaVersion != nil || mediaType != "" || content.Manifests != nil || content.Layers != nil || content.Config != nil
	switch {
	case content.Errors != nil && !describes: // an error with the status of a manifest
		return errNoManifest
	case oci.IsManifest(m.mediaType):
	case oci.IsManifest(mediaType):
		m.mediaType = mediaType
	case content.Manifests != nil:
		m.mediaType = v1.MediaTypeImageIndex
	case content.Layers != nil || content.Config != nil:
		m.mediaType = v1.MediaTypeImageManifest
	case !proven || m.mediaType == "":
		return errNoManifest
	}
	return nil
}

var (
	errNoManifest = errors.New("something that is not a manifest")
	errSchema1    = errors.New("a manifest of schema 1, which is obsolete: build and push the image again")
)

// readAtMost reads all of r, if that is no more than most bytes.
func readAtMost(r io.Reader, most int64) ([]byte, error) {
	var b bytes.Buffer // grows with less waste than io.ReadAll's slice
	_, err := b.ReadFrom(io.LimitReader(r, most+1))
	if errors.Is(err, access.ErrNoMemory) {
		return nil, access.ErrNoMemory
	}
	if err != nil {
		return nil, errors.New("a response that broke off")
	}
	if int64(b.Len()) > most {
		return nil, fmt.Errorf("a response longer than %d bytes", most)
	}
	return b.Bytes(), nil
}
