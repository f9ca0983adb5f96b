// Package inventory lists, prunes and verifies what a cache stores. It reads through the whole
// folder and takes no part in serving a pull.
package inventory

import (
	"cmp"
	"context"
	"slices"
	"strings"
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

// Inventory is what a cache stores.
type Inventory struct {
	Images []Image // by name
	Bytes  int64   // of all content, each file once
	Loose  int64   // of content that no image lists

	stored map[part]cache.Content
	loose  []cache.Content
}

// part is a piece of an image: a manifest or a blob.
type part struct {
	manifest bool
	digest   digest.Digest
}

// Read reads through the whole cache. A daemon may be using it: what comes and goes meanwhile
// may be in the result or not.
func Read(ctx context.Context, d *cache.Dir) (*Inventory, error) {
	inv := &Inventory{stored: map[part]cache.Content{}}
	// Content before records: what is fetched meanwhile then has its records too, and does
	// not count as loose.
	err := d.Walk(ctx, func(c cache.Content) error {
		inv.stored[part{c.Manifest, c.Digest}] = c
		inv.Bytes += c.Size
		return nil
	})
	if err != nil {
		return nil, err
	}
	repositories, err := readRepositories(ctx, d)
	if err != nil {
		return nil, err
	}
	s := &survey{dir: d, stored: inv.stored, listings: map[digest.Digest]listing{}}
	for r, names := range repositories {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		inv.Images = append(inv.Images, s.images(r, names)...)
	}
	slices.SortFunc(inv.Images, func(a, b Image) int {
		return cmp.Or(strings.Compare(a.Name(), b.Name()), strings.Compare(string(a.Digest), string(b.Digest)))
	})
	inv.findLoose()
	return inv, nil
}

func (inv *Inventory) findLoose() {
	listed := map[part]bool{}
	for _, i := range inv.Images {
		for _, p := range i.parts {
			listed[p] = true
		}
	}
	for p, c := range inv.stored {
		if !listed[p] {
			inv.loose = append(inv.loose, c)
			inv.Loose += c.Size
		}
	}
}

// names are the tags that a repository has and the manifests that it holds.
type names struct {
	tags []tagged
	held map[digest.Digest]cache.Holding
}

// tagged is a tag and what it meant last.
type tagged struct {
	tag      string
	meanings []cache.Meaning
}

func readRepositories(ctx context.Context, d *cache.Dir) (map[cache.Repository]*names, error) {
	all := map[cache.Repository]*names{}
	err := d.Records(ctx, func(r cache.Record) error {
		n := all[r.Repository]
		if n == nil {
			n = &names{held: map[digest.Digest]cache.Holding{}}
			all[r.Repository] = n
		}
		switch r.Kind {
		case cache.KindTag:
			n.tags = append(n.tags, tagged{r.Name, d.Tag(r.Repository, r.Name)})
		case cache.KindManifest:
			if dgst := r.Digest(); dgst != "" {
				if held := d.ManifestHoldings(r.Repository, dgst); len(held) > 0 {
					n.held[dgst] = held[0]
				}
			}
		}
		return nil
	})
	return all, err
}
