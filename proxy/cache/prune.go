package cache

import (
	"context"
	"errors"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Selection says what Prune removes. Everything it says has to hold.
type Selection struct {
	// Match, if not nil, chooses images. Content that no image lists is chosen only
	// where it is nil.
	Match func(Image) bool

	// UsedBefore, if not zero, leaves what was used since.
	UsedBefore time.Time

	// DownTo, if not 0, ends the removing as soon as no more bytes than that are kept.
	// What was used longest ago goes first.
	DownTo int64
}

// Pruned is what Prune removed, or would have.
type Pruned struct {
	Images []Image // in the order of their removal
	Loose  []Content
	Files  int   // of content
	Freed  int64 // bytes of content
}

// Prune removes what s selects, or, with dry, only says what that is. An image's
// content goes with it but for what an image that stays lists too. A daemon may be
// using the cache: what it is sending it sends to the end, and an image that it
// fetches at this moment it may have to fetch again.
func (d *Dir) Prune(ctx context.Context, s Selection, dry bool) (*Pruned, error) {
	inv, err := d.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	p := newPruning(inv)
	p.choose(s)
	if dry {
		return p.result, nil
	}
	return p.result, d.remove(ctx, p)
}

// pruning works out what goes with what.
type pruning struct {
	inv    *Inventory
	result *Pruned

	lists   map[part]int                // how many images that stay list it
	listsIn map[Repository]map[part]int // the same, by repository
	gone    []Content
	held    map[Repository][]part // memberships that go
}

func newPruning(inv *Inventory) *pruning {
	p := &pruning{
		inv: inv, result: &Pruned{},
		lists:   map[part]int{},
		listsIn: map[Repository]map[part]int{},
		held:    map[Repository][]part{},
	}
	for _, i := range inv.Images {
		if p.listsIn[i.Repository] == nil {
			p.listsIn[i.Repository] = map[part]int{}
		}
		for _, c := range i.parts {
			p.lists[c]++
			p.listsIn[i.Repository][c]++
		}
	}
	return p
}

// candidate is an image, or content that no image lists.
type candidate struct {
	image *Image
	loose Content
	used  time.Time
}

// choose takes out what s selects, what was used longest ago first.
func (p *pruning) choose(s Selection) {
	var all []candidate
	for _, i := range p.inv.Images {
		if s.Match == nil || s.Match(i) {
			all = append(all, candidate{image: &i, used: i.Used})
		}
	}
	if s.Match == nil {
		for _, c := range p.inv.loose {
			all = append(all, candidate{loose: c, used: c.Used})
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return a.used.Compare(b.used) })
	for _, c := range all {
		switch {
		case s.DownTo > 0 && p.inv.Bytes-p.result.Freed <= s.DownTo:
			return
		case !s.UsedBefore.IsZero() && !c.used.Before(s.UsedBefore):
			return
		case c.image == nil:
			p.result.Loose = append(p.result.Loose, c.loose)
			p.drop(c.loose)
		default:
			p.takeOut(*c.image)
		}
	}
}

func (p *pruning) takeOut(i Image) {
	p.result.Images = append(p.result.Images, i)
	for _, c := range i.parts {
		if p.listsIn[i.Repository][c]--; p.listsIn[i.Repository][c] == 0 {
			p.held[i.Repository] = append(p.held[i.Repository], c)
			delete(p.listsIn[i.Repository], c)
		}
		if p.lists[c]--; p.lists[c] > 0 {
			continue
		}
		if kept, ok := p.inv.kept[c]; ok {
			p.drop(kept)
		}
	}
}

func (p *pruning) drop(c Content) {
	p.gone = append(p.gone, c)
	p.result.Files++
	p.result.Freed += c.Size
}

// remove does what p worked out: names first, so that a removal that is cut short
// leaves content that is not used, and no name of content that is not there.
func (d *Dir) remove(ctx context.Context, p *pruning) error {
	var errs []error
	for _, i := range p.result.Images {
		errs = append(errs, d.untag(i))
	}
	for r, parts := range p.held {
		for _, c := range parts {
			kind := "_blobs"
			if c.manifest {
				kind = "_manifests"
			}
			errs = append(errs, ignoreMissing(d.root.Remove(holdingPath(r, kind, c.digest))))
		}
		if len(p.listsIn[r]) == 0 {
			errs = append(errs, d.removeRepository(r))
		}
	}
	gone := map[digest.Digest]bool{}
	for _, c := range p.gone {
		if ctx.Err() != nil {
			break
		}
		if err := ignoreMissing(d.root.Remove(c.path())); err != nil {
			errs = append(errs, err)
			continue
		}
		gone[c.Digest] = true
	}
	d.recent.drop(gone)
	errs = append(errs, d.forgetGone(gone), ctx.Err())
	return errors.Join(errs...)
}

// untag takes away what an image's tag means, or the tag, if it means nothing else.
func (d *Dir) untag(i Image) error {
	if i.Tag == "" {
		return nil
	}
	name := tagPath(i.Repository, i.Tag)
	left := slices.DeleteFunc(d.Tag(i.Repository, i.Tag), func(m Meaning) bool {
		return m.Digest == i.Digest && m.MediaType == i.MediaType
	})
	if len(left) > 0 {
		return d.writeRecord(name, left)
	}
	return ignoreMissing(d.root.Remove(name))
}

// removeRepository removes the records of a repository of which nothing is kept, and
// the folders that are empty then.
func (d *Dir) removeRepository(r Repository) error {
	var errs []error
	for _, kind := range []string{"_tags", "_manifests", "_blobs", "_answers", "_grants", "_granted"} {
		errs = append(errs, d.root.RemoveAll(r.folder()+"/"+kind))
	}
	for _, folder := range r.folders() {
		if d.root.Remove(folder) != nil {
			break // another repository is in it
		}
	}
	return errors.Join(errs...)
}

// folders are those of a repository and of what it is in, the innermost first.
func (r Repository) folders() []string {
	var all []string
	for f := r.folder(); f != "repositories"; f = path.Dir(f) {
		all = append(all, f)
	}
	return all
}
