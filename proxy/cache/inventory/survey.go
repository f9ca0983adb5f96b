package inventory

import (
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// survey makes images of what is stored.
type survey struct {
	dir      *cache.Dir
	stored   map[part]cache.Content
	listings map[digest.Digest]listing
}

// images returns those of one repository: what its tags mean, and the manifests that it holds
// and that nothing else of it leads to.
func (s *survey) images(r cache.Repository, n *names) []Image {
	var all []Image
	led := map[digest.Digest]bool{}
	for dgst := range n.held {
		for _, m := range s.listing(dgst).manifests() {
			led[m.Digest] = true
		}
	}
	for _, t := range n.tags {
		listed := map[digest.Digest]bool{} // each identity has its own meanings
		for _, m := range t.meanings {
			if listed[m.Digest] {
				continue
			}
			led[m.Digest], listed[m.Digest] = true, true
			all = append(all, s.image(Image{Repository: r, Tag: t.tag, Digest: m.Digest, MediaType: m.MediaType, Upstream: shownUpstream(m.Upstream)}, n))
		}
	}
	for dgst, h := range n.held {
		if _, stored := s.stored[part{true, dgst}]; stored && !led[dgst] {
			all = append(all, s.image(Image{Repository: r, Digest: dgst, MediaType: h.MediaType, Upstream: shownUpstream(h.Upstream)}, n))
		}
	}
	return all
}

// shownUpstream returns an upstream's name as people know it.
func shownUpstream(name string) string { return strings.TrimPrefix(name, "https://") }

// image adds to i what is stored of it.
func (s *survey) image(i Image, n *names) Image {
	c := composition{survey: s, names: n, image: &i, seen: map[part]bool{}}
	c.visit(descriptor{Digest: i.Digest}, 0)
	return i
}

// composition puts an image together, from its manifest downwards.
type composition struct {
	*survey
	*names
	image *Image
	seen  map[part]bool
}

// maxNesting is how deep indexes in indexes are followed.
const maxNesting = 4

// visit adds a manifest and what it lists. An index's manifests are added as far as they are
// stored: people seldom pull all platforms.
func (c *composition) visit(m descriptor, depth int) {
	size, stored := c.add(part{true, m.Digest})
	list := c.listing(m.Digest)
	if len(list.Manifests) == 0 {
		p := Platform{Digest: m.Digest, Name: m.Platform.String(), Size: size}
		if !stored {
			p.Missing = []digest.Digest{m.Digest}
		}
		c.image.Platforms = append(c.image.Platforms, c.fill(p, list))
		return
	}
	for _, child := range list.manifests() {
		_, held := c.held[child.Digest]
		_, stored := c.survey.stored[part{true, child.Digest}]
		if held && stored && depth < maxNesting && !c.seen[part{true, child.Digest}] {
			c.visit(child, depth+1)
		}
	}
}

// fill adds to a platform the blobs that its manifest lists.
func (c *composition) fill(p Platform, list listing) Platform {
	for _, b := range list.blobs() {
		size, stored := c.add(part{false, b.Digest})
		p.Size += size
		if !stored && !slices.Contains(p.Missing, b.Digest) {
			p.Missing = append(p.Missing, b.Digest)
		}
	}
	if p.Name == "" {
		p.Name = c.ownPlatform(list.Config)
	}
	return p
}

// add adds a piece to the image, once.
func (c *composition) add(p part) (size int64, stored bool) {
	content, stored := c.survey.stored[p]
	if c.seen[p] {
		return content.Size, stored
	}
	c.seen[p] = true
	c.image.parts = append(c.image.parts, p)
	c.image.Size += content.Size
	if p.manifest && content.Used.After(c.image.Used) {
		c.image.Used = content.Used
	}
	return content.Size, stored
}

// listing returns what a stored manifest lists; nothing if it is not stored.
func (s *survey) listing(dgst digest.Digest) listing {
	l, known := s.listings[dgst]
	if !known {
		if _, stored := s.stored[part{true, dgst}]; stored {
			l = listed(s.read(part{true, dgst}, oci.MaxManifest))
		}
		s.listings[dgst] = l
	}
	return l
}

// maxConfig bounds what is read of an image's configuration, of which only the platform is
// wanted.
const maxConfig = 4 << 20

// ownPlatform reads what an image is for from its configuration.
func (s *survey) ownPlatform(config descriptor) string {
	if _, stored := s.stored[part{false, config.Digest}]; !stored {
		return ""
	}
	var p platform
	if json.Unmarshal(s.read(part{false, config.Digest}, maxConfig), &p) != nil {
		return ""
	}
	return p.String()
}

// read reads content without counting that as a use. What cannot be read counts as empty:
// Verify finds out why.
func (s *survey) read(p part, most int64) []byte {
	f, err := s.dir.OpenContent(cache.Content{Digest: p.digest, Manifest: p.manifest})
	if err != nil {
		return nil
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil
	}
	return body
}
