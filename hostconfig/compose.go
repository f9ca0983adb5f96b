package hostconfig

import (
	"bytes"
	"context"
	"path"
	"slices"

	"github.com/sidemirror/sidemirror/hostconfig/certsd"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// composer makes one plan for the host of what the engines ask for. It goes by the real files, since
// several paths can lead to one by links.
type composer struct {
	host    *engine.Host
	want    engine.Desired
	plans   []*engine.Plan
	reports []bool // whether the state of a plan is reported
	files   map[string]*wantedFile
	order   []*wantedFile
	out     Plan

	// blocked is why no engine may be pointed at sidemirror's address for now, or nil. foreign says that
	// another user listens there, so that all entries have to go; else all files stay as they are.
	blocked *problem.Problem
	foreign bool
}

// wantedFile is a real file that should have an entry, for one or more edits.
type wantedFile struct {
	path   string // by which the first edit names it
	claims []claim
	state  engine.FileState
	refuse *problem.Problem // if state is Refused

	// unsafe says that the file must not have its entry, because a file that it needs has none.
	unsafe bool
}

type claim struct {
	plan *engine.Plan
	edit engine.Edit
}

func newComposer(h *engine.Host, want engine.Desired) *composer {
	c := &composer{host: h, files: make(map[string]*wantedFile)}
	c.out = Plan{Mirror: want.Mirror, running: make(map[string]bool), restart: make(map[string]bool)}
	var registries []string
	for _, name := range want.Registries {
		if err := certsd.CheckName(name, want.Mirror); err != nil {
			c.out.Refused = append(c.out.Refused, problem.Coded(err, "registry-name-invalid"))
		} else {
			registries = append(registries, name)
		}
	}
	want.Registries = registries
	c.want = want
	c.checkPort()
	if c.blocked != nil {
		c.out.Refused = append(c.out.Refused, c.blocked)
	}
	if c.foreign {
		c.want.Registries, c.want.Any = nil, false
	}
	return c
}

// look asks one engine what it needs.
func (c *composer) look(ctx context.Context, e engine.Engine) {
	state, report := e.Detect(ctx)
	plan := e.Plan(ctx, state, c.want)
	c.plans, c.reports = append(c.plans, &plan), append(c.reports, report)
	if state.Running && state.Home == "" && c.host.Running != nil {
		c.out.running[e.Name()] = true
	}
	if c.host.IsNamed(e.Name()) && !slices.Contains(c.out.named, e.Name()) {
		c.out.named = append(c.out.named, e.Name())
	}
}

// compose turns the engines' plans into one.
func (c *composer) compose() Plan {
	engine.LeaveUnverified(c.plans)
	for _, p := range c.plans {
		c.out.restart[p.State.Engine] = c.out.restart[p.State.Engine] || p.Restart
		if p.Hold != nil {
			p.State.Problems = append(p.State.Problems, p.Hold)
			c.out.Refused = append(c.out.Refused, p.Hold)
			continue
		}
		for _, r := range p.Refused {
			c.refuse(p, r.Problem)
		}
		for _, e := range p.Edits {
			c.claim(p, e)
		}
	}
	for _, w := range c.order {
		c.set(w)
	}
	if c.blocked == nil || c.foreign {
		c.restoreUnwanted()
	}
	var adopted []engine.Adopted
	for i, p := range c.plans {
		c.finishState(p)
		if c.reports[i] {
			c.out.Engines = append(c.out.Engines, p.State)
		}
		adopted = append(adopted, p.State.Adopted...)
		if p.Probe != nil {
			c.out.probes = append(c.out.probes, probeOf{p.State.Engine, p.State.Home, *p.Probe})
		}
	}
	c.out.Adopted = engine.MergeAdopted(adopted)
	return c.out
}

func (c *composer) refuse(p *engine.Plan, why *problem.Problem) {
	c.out.Refused = append(c.out.Refused, why)
	if p != nil {
		p.State.Problems = append(p.State.Problems, why)
	}
}

// claim notes that an edit is wanted of the real file behind its path.
func (c *composer) claim(p *engine.Plan, e engine.Edit) {
	real, err := c.host.Tree.Resolve(e.Path)
	if err != nil {
		real = e.Path // to read it fails in the same way, and says why
	}
	w := c.files[real]
	if w == nil {
		w = &wantedFile{path: e.Path}
		c.files[real] = w
		c.order = append(c.order, w)
	}
	w.claims = append(w.claims, claim{p, e})
}

// wanted returns what is wanted of the real file behind a path, or nil.
func (c *composer) wanted(name string) *wantedFile {
	return c.files[c.real(name)]
}

// real returns the path of the real file that a path leads to.
func (c *composer) real(name string) string {
	if real, err := c.host.Tree.Follow(name); err == nil {
		return real
	}
	return name
}

// set plans that a file has its entry.
func (c *composer) set(w *wantedFile) {
	change, err := c.plan(w)
	switch {
	case err != nil && c.blocked != nil:
		w.state = engine.Refused // which is reported as a whole
	case err != nil:
		w.state, w.refuse = engine.Refused, problem.Coded(err, "file-refused")
		c.out.Refused = append(c.out.Refused, w.refuse)
	case change == nil:
		w.state = engine.InPlace
	default:
		w.state = engine.Outdated
		if change.Before == nil {
			w.state = engine.Missing
		}
		if c.blocked == nil {
			c.out.Changes = append(c.out.Changes, *change)
		}
	}
}

// plan returns the change that a file needs, or nil if it needs none.
func (c *composer) plan(w *wantedFile) (*Change, error) {
	first := w.claims[0]
	entry, err := oneEntry(w)
	if err != nil {
		return nil, err
	}
	for _, cl := range w.claims {
		if needed := c.wanted(cl.edit.Needs); cl.edit.Needs != "" && (needed == nil || needed.state == engine.Refused) {
			w.unsafe = true
			return nil, &problem.Problem{
				Code: "needed-file-refused", Path: w.path, Text: "stays as it is, because " + cl.edit.Needs + " must be changed before it and cannot be",
				Hint: "see what is reported about that file",
			}
		}
	}
	now, err := c.host.Tree.Read(w.path)
	if err != nil {
		return nil, err
	}
	recorded := c.host.Journal.Find(w.path)
	if now.Exists() && !recorded.IsOurs(now.Data) && entry.Settled(w.path, now.Data) {
		return nil, nil
	}
	base, err := c.base(entry.Kind(), now)
	if err != nil {
		return nil, err
	}
	after, err := entry.Add(w.path, base)
	if err != nil || bytes.Equal(after, now.Data) {
		return nil, err
	}
	if err := c.host.Tree.Writable(now); err != nil {
		return nil, err
	}
	change := &Change{
		Engine: first.plan.State.Engine, Kind: entry.Kind(), Path: w.path, Before: now.Data, After: after, Why: first.edit.Why,
		Needs: first.edit.Needs, Changed: now.Attrs.Changed, home: first.plan.State.Home, url: c.want.Mirror, base: base,
	}
	for _, cl := range w.claims {
		change.engines = append(change.engines, cl.plan.State.Engine)
		change.paths = append(change.paths, cl.edit.Path)
	}
	return change, nil
}

// oneEntry returns the one entry that is right for all edits of a file.
func oneEntry(w *wantedFile) (engine.Entry, error) {
	entry := w.claims[0].edit.Entry
	for _, cl := range w.claims[1:] {
		merged, ok := entry.Merge(cl.edit.Entry)
		if !ok {
			return nil, &problem.Problem{
				Code: "file-shared", Path: w.path, Text: "is the same file as " + cl.edit.Path + ", and the two need different entries",
				Hint: "make them files of their own",
			}
		}
		entry = merged
	}
	return entry, nil
}

// base returns a file without sidemirror's entry; nil if there would be none.
func (c *composer) base(k engine.Kind, now hostfs.File) ([]byte, error) {
	if !now.Exists() {
		return nil, nil
	}
	entry := c.host.Journal.Find(now.Path)
	var original []byte
	var lost error
	if entry != nil {
		original, lost = c.host.Journal.Original(entry)
	}
	if entry.IsOurs(now.Data) && lost == nil {
		return original, nil
	}
	// If the file has changed since, the original is only a hint. A lost one is no reason to leave
	// the entry where it is.
	removed, err := strip(k, now, entry, c.want.Mirror, original)
	if err == nil && entry.IsOurs(now.Data) && !removed.Found {
		err = lost
	}
	if removed.Bare && (entry == nil || !entry.Existed) {
		return nil, err
	}
	return removed.Rest, err
}

// finishState completes the state of an engine: its files, and whether pulls go through sidemirror.
func (c *composer) finishState(p *engine.Plan) {
	s := &p.State
	inPlace, missing := 0, len(p.Skipped)
	for _, r := range p.Refused {
		s.Files = append(s.Files, engine.File{Path: r.Path, State: engine.Refused})
		missing++
	}
	if c.blocked != nil && s.Present && slices.Contains(c.want.Engines, s.Engine) {
		s.Problems = append(s.Problems, c.blocked)
	}
	pending := p.Pending
	for _, w := range c.order {
		for _, cl := range w.claims {
			if cl.plan != p {
				continue
			}
			s.Files = append(s.Files, engine.File{Path: cl.edit.Path, State: w.state})
			if w.state == engine.InPlace {
				inPlace++
			} else {
				missing++
			}
			if w.refuse != nil {
				s.Problems = append(s.Problems, w.refuse)
			}
			if w.state != engine.InPlace && pending != nil && pending.File == cl.edit.Path {
				pending = nil // the file's own change takes care of it
			}
			if cl.edit.Warning != nil && (w.state == engine.Missing || w.state == engine.Outdated) {
				s.Note(*cl.edit.Warning)
			}
		}
	}
	for _, file := range c.unwantedFiles(p) {
		s.Files = append(s.Files, engine.File{Path: file, State: engine.Unwanted})
	}
	if pending != nil {
		c.addPending(p, *pending)
	}
	switch {
	case !s.Present || !slices.Contains(c.want.Engines, s.Engine) || len(s.Through)+len(p.Skipped) == 0 && p.Hold == nil:
		s.Mirror = ""
	case p.Hold != nil:
		s.Mirror = engine.Unknown
	case s.Mirror == engine.Unknown:
	case s.Mirror == engine.Inactive || inPlace == 0:
		s.Mirror = engine.Inactive
	case missing > 0 || s.Mirror == engine.Partial:
		s.Mirror = engine.Partial
	default:
		s.Mirror = engine.Active
	}
}

// addPending reports that the engine has not taken a file, and plans the signal if it is allowed.
func (c *composer) addPending(p *engine.Plan, pending engine.Pending) {
	p.State.Problem(pending.Problem)
	p.State.Mirror = engine.Partial
	if pending.Signal.Verb == live.Restart {
		p.State.Mirror = engine.Inactive
	}
	if c.blocked == nil && (pending.Signal.Verb == live.Reload || p.Restart) {
		c.out.pending = append(c.out.pending, pending.Signal)
	}
}

// unwantedFiles are the files that an engine should lose. Those of an engine with several homes are
// listed with the first one.
func (c *composer) unwantedFiles(p *engine.Plan) []string {
	first := slices.IndexFunc(c.plans, func(other *engine.Plan) bool { return other.State.Engine == p.State.Engine })
	if c.plans[first] != p {
		return nil
	}
	var list []string
	for _, change := range c.out.Changes {
		if change.Restores && change.Engine == p.State.Engine && path.IsAbs(change.Path) {
			list = append(list, change.Path)
		}
	}
	return list
}

// marked reports whether a file has one of sidemirror's marks. One that cannot be read has none:
// what is neither in the journal nor readable is not known to be sidemirror's.
func (c *composer) marked(name string) bool {
	f, err := c.host.Tree.Read(name)
	return err == nil && splice.Marked(f.Data)
}
