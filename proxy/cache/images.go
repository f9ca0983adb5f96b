package cache

import (
	"cmp"
	"context"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Image is an image that is kept, whole or in part, by one of its names.
type Image struct {
	Repository Repository
	Tag        string // "" where it is known by its digest alone
	Digest     digest.Digest
	MediaType  string
	Upstream   string    // where it came from
	Used       time.Time // when one of its manifests was used last, by whatever name
	Size       int64     // bytes on disk; what several images share counts for each

	// Platforms are the manifests that are kept of it. An index of which none is kept
	// has none.
	Platforms []Platform

	parts []part
}

// Platform is an image for one platform.
type Platform struct {
	Name    string // "linux/arm64/v8"; "" where nothing that is kept says it
	Digest  digest.Digest
	Size    int64           // bytes on disk
	Missing []digest.Digest // what it lists and is not kept; itself, if only its name is
}

// Name is what the image is pulled by: "docker.io/library/alpine:3.20", or with
// "@sha256:…" where it has no tag.
func (i Image) Name() string {
	name := i.Repository.Registry + "/" + i.Repository.Name
	if i.Tag != "" {
		return name + ":" + i.Tag
	}
	return name + "@" + i.Digest.String()
}

// Whole reports whether all is kept of each platform that anything is kept of.
func (i Image) Whole() bool {
	return len(i.Platforms) > 0 && !slices.ContainsFunc(i.Platforms, func(p Platform) bool { return len(p.Missing) > 0 })
}

// Inventory is what a cache keeps.
type Inventory struct {
	Images []Image // by name
	Bytes  int64   // of all content, each file once
	Loose  int64   // of content that no image lists

	kept  map[part]Content
	loose []Content
}

// part is a piece of an image: a manifest or a blob.
type part struct {
	manifest bool
	digest   digest.Digest
}

// Inventory reads through the whole cache. A daemon may be using it: what comes and
// goes meanwhile may be in it or not.
func (d *Dir) Inventory(ctx context.Context) (*Inventory, error) {
	inv := &Inventory{kept: map[part]Content{}}
	// Content before records: what is fetched meanwhile then has its records too, and
	// is not taken for loose.
	err := d.Walk(ctx, func(c Content) error {
		inv.kept[part{c.Manifest, c.Digest}] = c
		inv.Bytes += c.Size
		return nil
	})
	if err != nil {
		return nil, err
	}
	repositories, err := d.repositories(ctx)
	if err != nil {
		return nil, err
	}
	s := &survey{dir: d, kept: inv.kept, listings: map[digest.Digest]listing{}}
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
	for p, c := range inv.kept {
		if !listed[p] {
			inv.loose = append(inv.loose, c)
			inv.Loose += c.Size
		}
	}
}

// names are the tags that a repository has and the manifests that it holds.
type names struct {
	tags []Tagged
	held map[digest.Digest]Holding
}

func (d *Dir) repositories(ctx context.Context) (map[Repository]*names, error) {
	all := map[Repository]*names{}
	of := func(r Repository) *names {
		if all[r] == nil {
			all[r] = &names{held: map[digest.Digest]Holding{}}
		}
		return all[r]
	}
	err := d.Tags(func(t Tagged) error {
		n := of(t.Repository)
		n.tags = append(n.tags, t)
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	return all, d.records(ctx, func(r record) error {
		if r.kind != "_manifests" {
			return nil
		}
		dgst := r.digest()
		if dgst == "" {
			return nil
		}
		if held := d.holdings(r.repository, "_manifests", dgst); len(held) > 0 {
			of(r.repository).held[dgst] = held[0]
		}
		return nil
	})
}

// record is a small file of a repository's: its path is the repository's folder, kind
// and name.
type record struct {
	path       string
	repository Repository
	kind, name string
}

// digest is what a membership's name says; "" if that is none.
func (r record) digest() digest.Digest {
	dgst := digest.Digest(strings.Replace(r.name, "/", ":", 1))
	if dgst.Validate() != nil {
		return ""
	}
	return dgst
}

// records calls visit for each record of each repository.
func (d *Dir) records(ctx context.Context, visit func(record) error) error {
	return fs.WalkDir(d.root.FS(), "repositories", func(name string, e fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return cmp.Or(ctx.Err(), ignoreMissing(err))
		}
		before, after, ok := strings.Cut(strings.TrimPrefix(name, "repositories/"), "/_")
		registry, repository, inRegistry := strings.Cut(before, "/")
		if e.IsDir() || !ok || !inRegistry {
			return nil
		}
		kind, rest, _ := strings.Cut(after, "/")
		return visit(record{name, Repository{registry, repository}, "_" + kind, rest})
	})
}
