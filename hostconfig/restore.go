package hostconfig

import (
	"path"
	"slices"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/journal"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// unwantedFile is a file that may have an entry and should not.
type unwantedFile struct {
	engine string
	kind   engine.Kind
	path   string
	plan   *engine.Plan // of the engine, nil if there is none
}

// restoreUnwanted plans that no file has an entry that no engine asks for. Files that endanger others
// come first: see [engine.Guard].
func (c *composer) restoreUnwanted() {
	guarded := make(map[string]string) // files, and what endangers them
	for _, p := range c.plans {
		for _, g := range p.Guards {
			guarded[g.File] = g.Danger
		}
	}
	list := c.unwanted()
	slices.SortStableFunc(list, func(a, b unwantedFile) int { return rank(guarded, a) - rank(guarded, b) })
	stays := make(map[string]bool) // files whose entry could not be taken out
	for _, u := range list {
		danger := guarded[u.path]
		if w := c.wanted(danger); danger != "" && (stays[danger] || w != nil && !w.unsafe) {
			continue
		}
		needs := ""
		if danger != "" && c.planned(danger) {
			needs = danger
		}
		if err := c.unset(u, needs); err != nil {
			stays[u.path] = true
			c.refuse(u.plan, engine.AsProblem(err, "file-refused"))
		}
	}
}

func rank(guarded map[string]string, u unwantedFile) int {
	if guarded[u.path] != "" {
		return 1
	}
	return 0
}

// unwanted lists the files that the journal knows, and those that are marked, and that no engine asks
// for. What belongs to an engine that is to be left alone, or that nothing should change for now, is
// not among them.
func (c *composer) unwanted() []unwantedFile {
	var list []unwantedFile
	seen := make(map[string]bool) // real files
	add := func(u unwantedFile) {
		w, real := c.wanted(u.path), c.real(u.path)
		if w != nil && !w.unsafe || seen[real] {
			return
		}
		seen[real] = true
		list = append(list, u)
	}
	for _, e := range c.host.Journal.Files {
		if p := c.planOf(e.Engine); !slices.Contains(c.want.Leave, e.Engine) && !c.held(e.Engine) && !c.retained(e.Engine, engine.Kind(e.Kind)) {
			name := e.Path
			if c.real(name) != e.Real {
				name = e.Real // a link on the way to the file leads elsewhere now
			}
			add(unwantedFile{e.Engine, engine.Kind(e.Kind), name, p})
		}
	}
	for _, p := range c.plans {
		if c.held(p.State.Engine) {
			continue
		}
		for _, name := range c.markedIn(p) {
			add(unwantedFile{p.State.Engine, engine.HostsTOML, name, p})
		}
		for _, file := range p.Configs {
			if !c.retained(p.State.Engine, file.Kind) && (file.Kind == engine.DaemonJSON || c.marked(file.Path)) {
				add(unwantedFile{p.State.Engine, file.Kind, file.Path, p})
			}
		}
	}
	return list
}

// markedIn lists the marked hosts.toml files in a plan's folders that the journal does not know.
func (c *composer) markedIn(p *engine.Plan) []string {
	var found []string
	for _, root := range p.Folders {
		list, err := c.host.Tree.Names(root)
		if err != nil {
			c.refuse(p, engine.AsProblem(err, "hosts-folder-unreadable"))
			continue
		}
		for _, item := range list {
			name := path.Join(root, item.Name(), "hosts.toml")
			if c.host.Journal.Find(name) == nil && c.marked(name) {
				found = append(found, name)
			}
		}
	}
	return found
}

func (c *composer) planOf(name string) *engine.Plan {
	for _, p := range c.plans {
		if p.State.Engine == name {
			return p
		}
	}
	return nil
}

// held reports whether nothing of an engine should change for now.
func (c *composer) held(name string) bool {
	return slices.ContainsFunc(c.plans, func(p *engine.Plan) bool { return p.State.Engine == name && p.Hold != nil })
}

// retained reports whether files of a kind keep the entry of an engine.
func (c *composer) retained(name string, k engine.Kind) bool {
	return slices.ContainsFunc(c.plans, func(p *engine.Plan) bool { return p.State.Engine == name && slices.Contains(p.Retain, k) })
}

func (c *composer) planned(name string) bool {
	return slices.ContainsFunc(c.out.Changes, func(change Change) bool { return change.Path == name })
}

// unset plans that a file has no entry.
func (c *composer) unset(u unwantedFile, needs string) error {
	if c.planned(u.path) {
		return nil
	}
	now, err := c.host.Tree.Read(u.path)
	if err != nil {
		return err
	}
	after, err := c.base(u.kind, now)
	if err != nil {
		return err
	}
	if hostfs.Same(after, now.Data) {
		return nil
	}
	if err := c.host.Tree.Writable(now); err != nil {
		return err
	}
	change := Change{
		Engine: u.engine, Kind: u.kind, Path: u.path, Before: now.Data, After: after, Why: "not wanted any more: sidemirror's entry is removed",
		Needs: needs, Restores: true, Changed: now.Attrs.Changed, base: after,
	}
	if u.kind == engine.DaemonJSON {
		change.interim = clearedFor(u.path, now.Data, after)
	}
	c.out.Changes = append(c.out.Changes, change)
	return nil
}

// strip takes the entry out of a file to which other programs may have written, or whose journal is
// lost.
func strip(k engine.Kind, now hostfs.File, entry *journal.Entry, mirror string, original []byte) (splice.Removed, error) {
	var urls []string
	if entry != nil {
		urls = []string{entry.URL}
	}
	switch k {
	case engine.HostsTOML:
		return splice.RemoveHosts(now.Path, now.Data, urls)
	case engine.ConfigTOML:
		return splice.RemoveConfigPath(now.Path, now.Data)
	case engine.DaemonJSON:
		if mirror != "" {
			urls = append(urls, mirror)
		}
		return splice.RemoveMirror(now.Data, urls, original), nil
	}
	return splice.Removed{}, &problem.Problem{Code: "journal-kind", Path: now.Path, Text: "the journal calls it " + string(k) + ", which this sidemirror does not know", Hint: "use the sidemirror that wrote the journal"}
}

// clearedFor returns what dockerd has to be shown between data and after, if after has no list of
// mirrors at all: a key that is removed and reloaded leaves dockerd's old mirrors in force, and an
// empty list clears them. It is nil if after has a list, or if dockerd could not read the files, which
// is no reason to leave the entry in them.
func clearedFor(name string, data, after []byte) []byte {
	last, err := splice.ReadDaemon(name, after, splice.Version{})
	if err != nil || last.HasList() {
		return nil
	}
	first, err := splice.ReadDaemon(name, data, splice.Version{})
	if err != nil {
		return nil
	}
	return first.ClearMirrors()
}
