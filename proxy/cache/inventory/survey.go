package inventory

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// survey makes images of what is stored, one repository after the other.
type survey struct {
	dir    *cache.Dir
	stored func(part) (size int64, stored bool)

	// Of the repository that is being surveyed.
	names     cache.Names
	manifests map[digest.Digest]stored
}

// stored is a manifest that is stored: what it lists, and when it was last used.
type stored struct {
	listing
	used time.Time
}

// images calls visit for the images of one repository, by name: what its tags mean, and the
// manifests that it holds and that nothing else of it leads to.
func (s *survey) images(ctx context.Context, r cache.Repository, visit func(Image) error) (err error) {
	if s.names, err = s.dir.ReadNames(ctx, r); err != nil {
		return err
	}
	s.manifests = map[digest.Digest]stored{}
	led := map[digest.Digest]bool{}
	for dgst := range s.names.Manifests {
		for _, m := range s.manifest(dgst).manifests() {
			led[m.Digest] = true
		}
	}
	for _, tag := range slices.Sorted(maps.Keys(s.names.Tags)) {
		listed := map[digest.Digest]bool{} // each identity has its own meanings
		meanings := s.names.Tags[tag]
		slices.SortStableFunc(meanings, func(a, b cache.Meaning) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
		for _, m := range meanings {
			if listed[m.Digest] {
				continue
			}
			led[m.Digest], listed[m.Digest] = true, true
			i := s.image(Image{Repository: r, Tag: tag, Digest: m.Digest, MediaType: m.MediaType, Upstream: shownUpstream(m.Upstream)})
			if err := visit(i); err != nil {
				return err
			}
		}
	}
	for _, dgst := range slices.Sorted(maps.Keys(s.names.Manifests)) {
		if _, there := s.stored(part{true, dgst}); !there || led[dgst] {
			continue
		}
		h := s.names.Manifests[dgst]
		i := s.image(Image{Repository: r, Digest: dgst, MediaType: h.MediaType, Upstream: shownUpstream(h.Upstream)})
		if err := visit(i); err != nil {
			return err
		}
	}
	return nil
}

// shownUpstream returns an upstream's name as people know it.
func shownUpstream(name string) string { return strings.TrimPrefix(name, "https://") }

// image adds to i what is stored of it.
func (s *survey) image(i Image) Image {
	c := composition{survey: s, image: &i, seen: map[part]bool{}}
	c.visit(descriptor{Digest: i.Digest}, 0)
	return i
}

// composition puts an image together, from its manifest downwards.
type composition struct {
	*survey
	image *Image
	seen  map[part]bool
}

// maxNesting is how deep indexes in indexes are followed.
const maxNesting = 4

// visit adds a manifest and what it lists. An index's manifests are added as far as they are
// stored: people seldom pull all platforms.
func (c *composition) visit(m descriptor, depth int) {
	size, stored := c.add(part{true, m.Digest})
	list := c.manifest(m.Digest)
	if list.used.After(c.image.Used) {
		c.image.Used = list.used
	}
	if len(list.Manifests) == 0 {
		p := Platform{Digest: m.Digest, Name: m.Platform.String(), Size: size}
		if !stored {
			p.Missing = []digest.Digest{m.Digest}
		}
		c.image.Platforms = append(c.image.Platforms, c.fill(p, list.listing))
		return
	}
	for _, child := range list.manifests() {
		_, held := c.names.Manifests[child.Digest]
		_, stored := c.stored(part{true, child.Digest})
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
	size, stored = c.stored(p)
	if c.seen[p] {
		return size, stored
	}
	c.seen[p] = true
	c.image.parts = append(c.image.parts, p)
	c.image.Size += size
	return size, stored
}

// manifest returns what a stored manifest lists; nothing if it is not stored. What cannot be read
// counts as empty: Verify finds out why.
func (s *survey) manifest(dgst digest.Digest) stored {
	m, known := s.manifests[dgst]
	if !known {
		body, c, err := s.dir.ReadContent(dgst, true, oci.MaxManifest)
		if err == nil {
			m.listing = listed(body)
		}
		m.used = c.Used
		if now := time.Now(); m.used.After(now) {
			m.used = now // a clock was wrong
		}
		s.manifests[dgst] = m
	}
	return m
}

// maxConfig bounds what is read of an image's configuration, of which only the platform is
// wanted.
const maxConfig = 4 << 20

// ownPlatform reads what an image is for from its configuration.
func (s *survey) ownPlatform(config descriptor) string {
	if _, there := s.stored(part{false, config.Digest}); !there {
		return ""
	}
	var p platform
	body, _, err := s.dir.ReadContent(config.Digest, false, maxConfig)
	if err != nil || json.Unmarshal(body, &p) != nil {
		return ""
	}
	return p.String()
}
