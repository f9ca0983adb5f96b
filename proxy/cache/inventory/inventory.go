// Package inventory lists, prunes and verifies what a cache stores. It reads the files of the
// folder, which a daemon may be using, and takes no part in serving a pull.
package inventory

import (
	"context"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

// Image is an image that is stored, whole or in part, under one of its names.
type Image struct {
	Repository cache.Repository
	Tag        string // "" if it is known by its digest alone
	Digest     digest.Digest
	MediaType  string
	Upstream   string    // where it came from
	Used       time.Time // when one of its manifests was last used, by whatever name
	Size       int64     // bytes on disk; what several images share counts for each

	// Platforms are its manifests that are stored. An index without any stored manifest has
	// none.
	Platforms []Platform

	parts []part
}

// Platform is an image for one platform.
type Platform struct {
	Name    string // "linux/arm64/v8"; "" if nothing stored says it
	Digest  digest.Digest
	Size    int64           // bytes on disk
	Missing []digest.Digest // what it lists and is not stored; itself, if only its name is
}

// Name returns what the image is pulled by: "docker.io/library/alpine:3.20", or with
// "@sha256:…" if it has no tag.
func (i Image) Name() string {
	name := i.Repository.Registry + "/" + i.Repository.Name
	if i.Tag != "" {
		return name + ":" + i.Tag
	}
	return name + "@" + i.Digest.String()
}

// Whole reports whether everything is stored of each platform of which anything is.
func (i Image) Whole() bool {
	return len(i.Platforms) > 0 && !slices.ContainsFunc(i.Platforms, func(p Platform) bool { return len(p.Missing) > 0 })
}

// Totals are the sums of what was listed.
type Totals struct {
	Images int
	Bytes  int64 // of the content, each file once
	Loose  int64 // of content that no image lists; it is part of Bytes
}

// part is a piece of an image: a manifest or a blob.
type part struct {
	manifest bool
	digest   digest.Digest
}

// List calls visit for each image, by name. It takes little memory, whatever the number of images: 16
// bytes for each file, and the names of the repositories. What comes and goes meanwhile may be in
// the result or not.
func List(ctx context.Context, d *cache.Dir, visit func(Image) error) (Totals, error) {
	images := 0
	// Content before records: what is fetched meanwhile then has its records too, and does
	// not count as loose.
	all, err := readContents(ctx, d)
	if err != nil {
		return Totals{}, err
	}
	err = list(ctx, d, all, func(i Image) error {
		images++
		return visit(i)
	})
	if err != nil {
		return Totals{}, err
	}
	bytes, loose := all.sums()
	return Totals{images, bytes, loose}, nil
}

// list calls visit for each image, by name, and records in all what of the content images list.
func list(ctx context.Context, d *cache.Dir, all *contents, visit func(Image) error) error {
	repositories, err := d.Repositories(ctx)
	if err != nil {
		return err
	}
	s := &survey{dir: d, stored: all.find}
	for _, r := range repositories {
		err := s.images(ctx, r, func(i Image) error {
			for _, p := range i.parts {
				all.list(p)
			}
			return visit(i)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ListIn calls visit for each image of some repositories. It reads no others.
func ListIn(ctx context.Context, d *cache.Dir, repositories []cache.Repository, visit func(Image) error) (Totals, error) {
	var t Totals
	seen := map[part]int64{}
	s := &survey{dir: d, stored: onDisk(d)}
	for _, r := range repositories {
		err := s.images(ctx, r, func(i Image) error {
			t.Images++
			for _, p := range i.parts {
				if _, ok := seen[p]; !ok {
					seen[p], _ = s.stored(p)
				}
			}
			return visit(i)
		})
		if err != nil {
			return t, err
		}
	}
	for _, size := range seen {
		t.Bytes += size
	}
	return t, nil
}
