package inventory

import (
	"encoding/json"
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

// descriptor is what a manifest says of another piece of content (image-spec,
// descriptor.md).
type descriptor struct {
	Digest   digest.Digest `json:"digest"`
	Size     int64         `json:"size"`
	URLs     []string      `json:"urls"`
	Platform *platform     `json:"platform"`
}

// platform says what an image runs on; an image's configuration has the same fields.
type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant"`
}

func (p *platform) String() string {
	if p == nil || p.OS == "" || p.Architecture == "" {
		return ""
	}
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// listing is what a manifest lists: other manifests, or a configuration and layers.
type listing struct {
	Manifests []descriptor `json:"manifests"`
	Config    descriptor   `json:"config"`
	Layers    []descriptor `json:"layers"`
}

// listed reads what can be read of a manifest's lists. The engine judges the rest of it.
func listed(body []byte) listing {
	var l listing
	var wrongType *json.UnmarshalTypeError
	if err := json.Unmarshal(body, &l); err != nil && !errors.As(err, &wrongType) {
		return listing{}
	}
	return l
}

// blobs returns the layers and the configuration, without those that are fetched from
// elsewhere.
func (l listing) blobs() []descriptor { return usable(append(l.Layers, l.Config)) }

// manifests returns those of an index.
func (l listing) manifests() []descriptor { return usable(l.Manifests) }

// maxChildren bounds what one manifest may list.
const maxChildren = 4096

func usable(all []descriptor) []descriptor {
	var ok []descriptor
	for _, c := range all {
		if cache.ValidDigest(c.Digest) && len(c.URLs) == 0 && len(ok) < maxChildren {
			ok = append(ok, c)
		}
	}
	return ok
}
