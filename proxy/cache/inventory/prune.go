package inventory

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

// Selection says what Prune removes. All of its conditions must hold.
type Selection struct {
	// Match, if not nil, chooses images. Content that no image lists is chosen only if it is
	// nil.
	Match func(Image) bool

	// UsedBefore, if not zero, spares what was used since.
	UsedBefore time.Time

	// DownTo, if not 0, ends the removal as soon as no more bytes than that are stored. What
	// was used longest ago goes first.
	DownTo int64
}

// Pruned is what Prune removed, or would have.
type Pruned struct {
	Images []Image // in the order of their removal
	Loose  []cache.Content
	Files  int   // of content
	Freed  int64 // bytes of content
}

// Prune removes what s selects, or, with dry, only says what that is. An image's content goes
// with it, except for what an image that stays lists too. A daemon may be using the cache: it
// finishes what it is sending, and may have to fetch again what it fetches at this moment.
func Prune(ctx context.Context, d *cache.Dir, s Selection, dry bool) (*Pruned, error) {
	inv, err := Read(ctx, d)
	if err != nil {
		return nil, err
	}
	p := newPruning(inv)
	p.choose(s)
	if dry {
		return p.result, nil
	}
	return p.result, p.remove(ctx, d)
}

// pruning works out what goes with what.
type pruning struct {
	inv    *Inventory
	result *Pruned

	lists   map[part]int                      // how many images that stay list it
	listsIn map[cache.Repository]map[part]int // the same, by repository
	gone    []cache.Content
	held    map[cache.Repository][]part // memberships that go
}

func newPruning(inv *Inventory) *pruning {
	p := &pruning{
		inv: inv, result: &Pruned{},
		lists:   map[part]int{},
		listsIn: map[cache.Repository]map[part]int{},
		held:    map[cache.Repository][]part{},
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
	loose cache.Content
	used  time.Time
}

// choose selects what s says, what was used longest ago first.
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
		if stored, ok := p.inv.stored[c]; ok {
			p.drop(stored)
		}
	}
}

func (p *pruning) drop(c cache.Content) {
	p.gone = append(p.gone, c)
	p.result.Files++
	p.result.Freed += c.Size
}

// remove does what p worked out: names first, so that a removal that is interrupted leaves
// content that is not used, and no name of content that is missing.
func (p *pruning) remove(ctx context.Context, d *cache.Dir) error {
	var errs []error
	for _, i := range p.result.Images {
		if i.Tag != "" {
			errs = append(errs, d.Untag(i.Repository, i.Tag, i.Digest))
		}
	}
	for r, parts := range p.held {
		for _, c := range parts {
			kind := cache.KindBlob
			if c.manifest {
				kind = cache.KindManifest
			}
			errs = append(errs, d.Forget(r, kind, c.digest))
		}
		if len(p.listsIn[r]) == 0 {
			errs = append(errs, d.RemoveRepository(r))
		}
	}
	_, err := d.RemoveContent(ctx, p.gone)
	return errors.Join(append(errs, err)...)
}
