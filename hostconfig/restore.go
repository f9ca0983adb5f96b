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
	real   string       // what that stands for
	plan   *engine.Plan // of the engine, nil if there is none
}

// restoreUnwanted plans that no file has an entry that no engine asks for. Files that endanger others
// come first: see [engine.Guard].
func (c *composer) restoreUnwanted() {
	guards := make(map[string]engine.Guard) // by the real file that has to stay
	for _, p := range c.plans {
		for _, g := range p.Guards {
			guards[c.real(g.File)] = g
		}
	}
	list := c.unwanted()
	rank := func(u unwantedFile) int { return len(guards[u.real].Danger) }
	slices.SortStableFunc(list, func(a, b unwantedFile) int { return min(rank(a), 1) - min(rank(b), 1) })
	stays := make(map[string]bool) // real files whose entry could not be taken out
	for _, u := range list {
		g, guarded := guards[u.real]
		needs := ""
		if guarded {
			if w := c.wanted(g.Danger); stays[c.real(g.Danger)] || w != nil && !w.unsafe {
				continue
			}
			if err := c.clear(g, u.engine); err != nil {
				c.refuse(u.plan, problem.Coded(err, "docker-mirror-in-force"))
				continue
			}
			if c.planned(g.Danger) {
				needs = g.Danger
			}
		}
		if err := c.unset(u, needs); err != nil {
			stays[u.real] = true
			c.refuse(u.plan, problem.Coded(err, "file-refused"))
		}
	}
}

// clear makes sure that the running dockerd forgets sidemirror's address before the file that makes it
// harmless goes. It fails if dockerd cannot be made to.
func (c *composer) clear(g engine.Guard, name string) error {
	if !g.InForce {
		return nil
	}
	cannot := &problem.Problem{
		Code: "docker-mirror-in-force", Path: g.File,
		Text: "stays, because the running dockerd asks sidemirror and cannot take " + g.Danger + ": without this file it would stop verifying TLS to Docker Hub",
		Hint: "correct " + g.Danger + " and run sidemirror revert again, or stop docker before",
	}
	if i := slices.IndexFunc(c.out.Changes, func(change Change) bool { return change.Path == g.Danger }); i >= 0 {
		change := c.out.Changes[i]
		if _, err := splice.ReadDaemon(g.Danger, change.After, splice.Version{}); err != nil {
			return cannot
		}
		return nil
	}
	now, err := c.host.Tree.Read(g.Danger)
	if err != nil {
		return err
	}
	interim := now.Data // if it has a list, dockerd takes that
	d, err := splice.ReadDaemon(g.Danger, now.Data, splice.Version{})
	if err == nil && !d.HasList() {
		interim, err = emptyList(g.Danger, d, c.want.Mirror)
	}
	if err != nil {
		cannot.Err = err
		return cannot
	}
	if err := c.host.Tree.Writable(now); err != nil {
		return err
	}
	c.out.Changes = append(c.out.Changes, Change{
		Engine: name, Kind: engine.DaemonJSON, Path: g.Danger, Before: now.Data, After: now.Data, Restores: true, Changed: now.Attrs.Changed,
		Why: "the running dockerd still asks sidemirror: it has to take an empty list of mirrors", base: now.Data, interim: interim,
	})
	return nil
}

// emptyList returns a daemon.json without mirrors with an empty list of them.
func emptyList(name string, d *splice.Daemon, mirror string) ([]byte, error) {
	data, err := d.AddMirror(mirror)
	if err != nil {
		return nil, err
	}
	if d, err = splice.ReadDaemon(name, data, splice.Version{}); err != nil {
		return nil, err
	}
	return d.ClearMirrors(), nil
}

// unwanted lists the files that the journal knows, and those that are marked, and that no engine asks
// for. What belongs to an engine that should be left alone, or that nothing should change for now, is
// not among them.
func (c *composer) unwanted() []unwantedFile {
	var list []unwantedFile
	add := func(u unwantedFile) {
		u.real = c.real(u.path)
		w := c.files[u.real]
		if w != nil && !w.unsafe {
			return
		}
		if !slices.ContainsFunc(list, func(other unwantedFile) bool { return other.real == u.real }) {
			list = append(list, u)
		}
	}
	for _, e := range c.host.Journal.Files {
		if slices.ContainsFunc(e.Engines, func(name string) bool {
			return slices.Contains(c.want.Leave, name) || c.held(name) || c.retained(name, engine.Kind(e.Kind))
		}) {
			continue
		}
		name := e.Path
		if c.real(name) != e.Real {
			name = e.Real // a link was changed since
		}
		add(unwantedFile{engine: e.Engine, kind: engine.Kind(e.Kind), path: name, plan: c.planOf(e.Engine)})
	}
	for _, p := range c.plans {
		if c.held(p.State.Engine) {
			continue
		}
		for _, name := range c.markedIn(p) {
			add(unwantedFile{engine: p.State.Engine, kind: engine.HostsTOML, path: name, plan: p})
		}
		for _, file := range p.Configs {
			if !c.retained(p.State.Engine, file.Kind) && (file.Kind == engine.DaemonJSON || c.marked(file.Path)) {
				add(unwantedFile{engine: p.State.Engine, kind: file.Kind, path: file.Path, plan: p})
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
			c.refuse(p, problem.Coded(err, "hosts-folder-unreadable"))
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
	if entry := c.host.Journal.Find(u.path); entry != nil {
		change.engines = entry.Engines
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
	case engine.RegistriesConf:
		return splice.RemoveRegistries(now.Path, now.Data, urls)
	case engine.BuildkitdTOML:
		if mirror != "" {
			urls = append(urls, mirror)
		}
		return splice.RemoveBuildKit(now.Path, now.Data, urls)
	case engine.DropIn:
		return splice.RemoveDropIn(now.Data), nil
	case engine.DaemonJSON:
		if mirror != "" {
			urls = append(urls, mirror)
		}
		return splice.RemoveMirror(now.Data, urls, original), nil
	}
	return splice.Removed{}, &problem.Problem{Code: "journal-kind", Path: now.Path, Text: "the journal calls it " + string(k) + ", which this sidemirror does not know", Hint: "use the sidemirror that wrote the journal"}
}

// clearedFor returns what dockerd must read between data and after, if after has no list of
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
