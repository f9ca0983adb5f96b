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

	// In are the repositories of the images that Match chooses; nil if they may be in any. Prune
	// reads no others then, if it knows which repositories hold the same content.
	In []cache.Repository

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
	p := &pruning{
		dir: d, result: &Pruned{},
		listsIn: map[cache.Repository]map[part]int{},
		held:    map[cache.Repository][]part{},
		others:  map[cache.Repository]map[part]bool{},
	}
	if err := p.read(ctx, s); err != nil {
		return nil, err
	}
	if err := p.choose(ctx, s); err != nil {
		return nil, err
	}
	if dry {
		return p.result, nil
	}
	return p.result, p.remove(ctx)
}

// pruning works out what goes with what.
type pruning struct {
	dir    *cache.Dir
	result *Pruned

	images []Image // that may go
	loose  []cache.Content
	bytes  int64

	// What images that stay list: of all content, or, if all is nil, in the repositories whose
	// images were read. What those of others list is looked up when it is needed.
	all    *contents
	lists  map[part]int
	in     []cache.Repository
	others map[cache.Repository]map[part]bool

	listsIn map[cache.Repository]map[part]int // how many images that stay list it, of those that have one to choose from
	gone    []cache.Content
	held    map[cache.Repository][]part // memberships that go
}

// read reads the images that s can choose from.
func (p *pruning) read(ctx context.Context, s Selection) (err error) {
	if s.In != nil && s.DownTo == 0 && p.dir.HoldersKnown() {
		p.in, p.lists = s.In, map[part]int{}
		_, err := ListIn(ctx, p.dir, s.In, p.enter(s))
		return err
	}
	if p.all, err = readContents(ctx, p.dir); err != nil {
		return err
	}
	p.all.count()
	if err := list(ctx, p.dir, p.all, p.enter(s)); err != nil || s.Match != nil && s.DownTo == 0 {
		return err
	}
	now := time.Now()
	return p.dir.Walk(ctx, func(c cache.Content) error {
		p.bytes += c.Size
		if c.Used.After(now) {
			c.Used = now // a clock was wrong
		}
		if s.Match == nil && s.isBefore(c.Used) && !p.all.listed(part{c.Manifest, c.Digest}) {
			p.loose = append(p.loose, c)
		}
		return nil
	})
}

// enter returns a function that is called with the images, one repository after the other. It
// remembers those that may go, and what images of the same repositories list.
func (p *pruning) enter(s Selection) func(Image) error {
	var in cache.Repository
	var lists map[part]int
	return func(i Image) error {
		if lists == nil || i.Repository != in {
			in, lists = i.Repository, map[part]int{}
		}
		for _, c := range i.parts {
			lists[c]++
			if p.all == nil {
				p.lists[c]++
			}
		}
		if (s.Match == nil || s.Match(i)) && s.isBefore(i.Used) {
			p.images = append(p.images, i)
			p.listsIn[in] = lists
		}
		return nil
	}
}

// isBefore reports whether what was last used then may go.
func (s Selection) isBefore(used time.Time) bool {
	return s.UsedBefore.IsZero() || used.Before(s.UsedBefore)
}

// unlist records that an image that lists c goes, and reports whether it is the last one of those
// that were read.
func (p *pruning) unlist(c part) bool {
	if p.all != nil {
		return p.all.unlist(c)
	}
	p.lists[c]--
	return p.lists[c] == 0
}

// candidate is an image, or content that no image lists.
type candidate struct {
	image *Image
	loose cache.Content
	used  time.Time
}

// choose selects what s says, what was used longest ago first.
func (p *pruning) choose(ctx context.Context, s Selection) error {
	var all []candidate
	for n, i := range p.images {
		all = append(all, candidate{image: &p.images[n], used: i.Used})
	}
	for _, c := range p.loose {
		all = append(all, candidate{loose: c, used: c.Used})
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return a.used.Compare(b.used) })
	for _, c := range all {
		switch {
		case s.DownTo > 0 && p.bytes-p.result.Freed <= s.DownTo:
			return nil
		case c.image == nil:
			p.result.Loose = append(p.result.Loose, c.loose)
			p.drop(c.loose)
		default:
			if err := p.takeOut(ctx, *c.image); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *pruning) takeOut(ctx context.Context, i Image) error {
	p.result.Images = append(p.result.Images, i)
	for _, c := range i.parts {
		if p.listsIn[i.Repository][c]--; p.listsIn[i.Repository][c] == 0 {
			p.held[i.Repository] = append(p.held[i.Repository], c)
			delete(p.listsIn[i.Repository], c)
		}
		if !p.unlist(c) {
			continue
		}
		stored, err := p.dir.Stored(c.digest, c.manifest)
		if err != nil {
			continue // there is nothing to remove
		}
		elsewhere, err := p.listedElsewhere(ctx, c)
		if err != nil {
			return err
		}
		if !elsewhere {
			p.drop(stored)
		}
	}
	return nil
}

// listedElsewhere reports whether an image of a repository that was not read lists c.
func (p *pruning) listedElsewhere(ctx context.Context, c part) (found bool, err error) {
	if p.in == nil {
		return false, nil
	}
	var surveyErr error
	_, err = p.dir.Holders(ctx, c.digest, func(r cache.Record) bool {
		if slices.Contains(p.in, r.Repository) {
			return true
		}
		lists := p.others[r.Repository]
		if lists == nil {
			lists = map[part]bool{}
			p.others[r.Repository] = lists
			s := &survey{dir: p.dir, stored: onDisk(p.dir)}
			surveyErr = s.images(ctx, r.Repository, func(i Image) error {
				for _, c := range i.parts {
					lists[c] = true
				}
				return nil
			})
		}
		found = lists[c]
		return surveyErr == nil && !found
	})
	return found, errors.Join(err, surveyErr)
}

func (p *pruning) drop(c cache.Content) {
	p.gone = append(p.gone, c)
	p.result.Files++
	p.result.Freed += c.Size
}

// remove does what p worked out: names first, so that a removal that is interrupted leaves
// content that is not used, and no name of content that is missing.
func (p *pruning) remove(ctx context.Context) error {
	d := p.dir
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
