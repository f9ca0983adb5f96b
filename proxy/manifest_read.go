package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// maxManifest is the size, in bytes, that the specification asks registries to
// take at least and that engines take at most.
const maxManifest = 4 << 20

// The media types of Docker's own manifests.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// manifest is a manifest as an upstream has it, to the byte. body is nil where only
// the description was asked for.
type manifest struct {
	body      []byte
	size      int64
	digest    digest.Digest
	mediaType string
	from      *upstream.Upstream // nil for a stored one
	stale     bool               // no upstream could say whether the tag still means it
}

// readManifest reads and checks an upstream's 200. The answer to a HEAD that lacks
// something gives nil: the content must be asked for.
func readManifest(resp *http.Response, method string, want digest.Digest) (*manifest, error) {
	defer resp.Body.Close()
	m := &manifest{size: resp.ContentLength, digest: want, mediaType: resp.Header.Get("Content-Type")}
	said := resp.Header.Get("Docker-Content-Digest")
	if method == http.MethodHead {
		d, err := digest.Parse(said)
		if err != nil || m.size <= 0 || m.size > maxManifest || !isManifestType(m.mediaType) || (want != "" && d != want) {
			return nil, nil
		}
		m.digest = d
		return m, nil
	}
	var err error
	if m.body, err = readAtMost(resp.Body, maxManifest); err != nil {
		return nil, err
	}
	if m.size >= 0 && m.size != int64(len(m.body)) {
		return nil, fmt.Errorf("a manifest that is not of the length announced")
	}
	m.size = int64(len(m.body))
	if isSchema1(m.mediaType) {
		return nil, errSchema1
	}
	if err := m.check(said, resp.Header.Get("Content-Encoding")); err != nil {
		return nil, err
	}
	return m, nil
}

// check verifies the content against the digest asked for, or the one said, and
// finds the media type.
func (m *manifest) check(said, encoding string) error {
	proven := m.digest != ""
	if !proven {
		m.digest = digest.FromBytes(m.body)
		if d, err := digest.Parse(said); err == nil {
			m.digest, proven = d, true
		}
	}
	if m.digest.Algorithm().FromBytes(m.body) != m.digest {
		return fmt.Errorf("a manifest that is not its digest")
	}
	if !proven && encoding != "" && encoding != "identity" {
		return fmt.Errorf("a manifest that is compressed (%q), which nobody asked for", clip(encoding))
	}
	return m.findType()
}

// findType settles the media type: the upstream's Content-Type as it came, and
// where that says nothing what the content says of itself.
func (m *manifest) findType() error {
	var content struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Layers        json.RawMessage `json:"layers"`
		Config        json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal(m.body, &content); err != nil {
		return fmt.Errorf("something that is not a manifest")
	}
	if content.SchemaVersion == 1 {
		return errSchema1
	}
	isOne := content.SchemaVersion == 2 || content.Manifests != nil || content.Layers != nil || content.Config != nil
	switch {
	case !isOne:
		return fmt.Errorf("something that is not a manifest")
	case isManifestType(m.mediaType):
	case isManifestType(content.MediaType):
		m.mediaType = content.MediaType
	case content.Manifests != nil:
		m.mediaType = v1.MediaTypeImageIndex
	case content.Layers != nil || content.Config != nil:
		m.mediaType = v1.MediaTypeImageManifest
	default:
		return fmt.Errorf("something that is not a manifest")
	}
	return nil
}

// isManifestType reports whether s says what kind of manifest something is. Plain
// JSON, text and HTML do not.
func isManifestType(s string) bool {
	t, _, err := mime.ParseMediaType(s)
	return err == nil && strings.HasPrefix(t, "application/vnd.") && !isSchema1(t)
}

var errSchema1 = errors.New("a manifest of schema 1, which is obsolete: build and push the image anew, or ask for it with an Accept that names its type")

func isSchema1(mediaType string) bool {
	return strings.Contains(mediaType, ".distribution.manifest.v1+")
}

// readAtMost reads all of r, if that is no more than most bytes.
func readAtMost(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, fmt.Errorf("an answer that broke off")
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("an answer longer than %d bytes", most)
	}
	return b, nil
}
