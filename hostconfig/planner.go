package hostconfig

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/journal"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
)

// kind is how a file is edited.
type kind string

const (
	hostsFile  kind = "hosts.toml"
	daemonFile kind = "daemon.json"
	configFile kind = "config.toml"
)

// engine is one container engine.
type engine interface {
	name() string
	folder() string     // its configuration
	binary() string     // the program, in one of binFolders
	packages() []string // what Debian calls it
	runs() bool

	plan(ctx context.Context) []State // what has to change for planner.want
	undo()                            // what has to change for nothing of ours to be left
}

// binFolders are the only places that engines are looked for and run from.
var binFolders = []string{"/usr/bin", "/usr/local/bin", "/usr/sbin", "/usr/local/sbin", "/opt/bin"}

// planner collects the changes of one [Make].
type planner struct {
	host    *Host
	tree    *hostfs.Host
	journal *journal.Journal
	want    Desired
	live    *info // of the running dockerd; nil where there is none
	out     Plan
}

// look asks the running dockerd.
func (p *planner) look(ctx context.Context) {
	s := p.host.signals(p.tree)
	p.out.told = s != nil
	p.out.Mirror = p.want.Mirror
	if p.out.dockerRuns = s != nil && s.Running(ctx); !p.out.dockerRuns {
		return
	}
	if live, err := s.Info(ctx); err == nil {
		p.live = &live
	}
}

func (p *planner) refuse(err error) { p.out.Refused = append(p.out.Refused, err) }

// present goes by the program or the process. In a tree that is not the running host's
// the configuration's folder will do: an image may be given its engine later. On
// the host it will not, since it outlives an engine that was taken off. One that was
// configured because somebody named it stays so for who does not name it.
func (p *planner) present(e engine) bool {
	if e.runs() || p.binary(e) != "" || !p.host.running() && p.tree.IsDir(e.folder()) {
		return true
	}
	named := slices.Contains(p.host.Present, e.name()) || slices.Contains(p.journal.Named, e.name())
	if named {
		p.out.named = append(p.out.named, e.name())
	}
	return named
}

func (p *planner) binary(e engine) string {
	for _, folder := range binFolders {
		if name := path.Join(folder, e.binary()); p.tree.IsFile(name) {
			return name
		}
	}
	return ""
}

// edit is how one file gets our part.
type edit struct {
	engine, path string
	state        *State
	kind         kind
	why          string
	needs        string
	add          func(base []byte) ([]byte, error) // base is nil where there is no file
	settled      func(now []byte) bool             // a file that others wrote to as well
}

// set plans that a file has our part, and reports whether it will, or has it
// already. Where it cannot, the reason is noted.
func (p *planner) set(e edit) bool {
	e.state.Files = append(e.state.Files, e.path)
	now, err := p.tree.Read(e.path)
	if err != nil {
		p.refuse(err)
		return false
	}
	if p.plannedReal(now.Real) {
		return true // by another name of the same file
	}
	entry := p.journal.Find(e.path)
	if now.Exists() && !entry.IsOurs(now.Data) && e.settled(now.Data) {
		return true
	}
	base, err := p.base(e.kind, now, entry)
	if err != nil {
		p.refuse(err)
		return false
	}
	after, err := e.add(base)
	if err != nil {
		p.refuse(err)
		return false
	}
	if !bytes.Equal(after, now.Data) {
		if err := p.tree.Writable(now); err != nil {
			p.refuse(err)
			return false
		}
		p.out.Changes = append(p.out.Changes, Change{
			Engine: e.engine, Path: e.path, Before: now.Data, After: after, Why: e.why,
			kind: e.kind, url: p.want.Mirror, base: base, needs: e.needs, changed: now.Attrs.Changed,
		})
	}
	return true
}

// base is the file without our part; nil where there would be none.
func (p *planner) base(k kind, now hostfs.File, entry *journal.Entry) ([]byte, error) {
	if !now.Exists() {
		return nil, nil
	}
	if entry.IsOurs(now.Data) {
		return p.journal.Original(entry)
	}
	var original []byte
	if entry != nil {
		// Only a hint here: the file has changed since, so that a lost original is
		// no reason to give up.
		original, _ = p.journal.Original(entry)
	}
	rest, _, bare, err := p.strip(k, now, entry, original)
	if bare && (entry == nil || !entry.Existed) {
		rest = nil
	}
	return rest, err
}

// strip takes our part out of a file that others wrote to as well, or whose
// journal is lost.
func (p *planner) strip(k kind, now hostfs.File, entry *journal.Entry, original []byte) (rest []byte, found, bare bool, err error) {
	var urls []string
	if entry != nil {
		urls = []string{entry.URL}
	}
	switch k {
	case hostsFile:
		removed, err := splice.RemoveHosts(now.Path, now.Data, urls)
		return removed.Rest, removed.Found, removed.Bare, err
	case configFile:
		removed, err := splice.RemoveConfigPath(now.Path, now.Data)
		return removed.Rest, removed.Found, removed.Bare, err
	}
	if p.want.Mirror != "" {
		urls = append(urls, p.want.Mirror)
	}
	removed := splice.RemoveMirror(now.Data, urls, original)
	return removed.Rest, removed.Found, removed.Bare, nil
}

// unset plans that a file has nothing of ours. It reports false where that was
// refused.
func (p *planner) unset(engine, name string, k kind, why, needs string) bool {
	if p.planned(name) {
		return true
	}
	now, err := p.tree.Read(name)
	if err != nil {
		p.refuse(err)
		return false
	}
	if p.plannedReal(now.Real) {
		return true
	}
	entry := p.journal.Find(name)
	after, err := p.base(k, now, entry)
	if err != nil {
		p.refuse(err)
		return false
	}
	if bytes.Equal(after, now.Data) && (after == nil) == (now.Data == nil) {
		return true
	}
	if err := p.tree.Writable(now); err != nil {
		p.refuse(err)
		return false
	}
	c := Change{
		Engine: engine, Path: name, Before: now.Data, After: after, Why: why,
		kind: k, base: after, needs: needs, undo: true, changed: now.Attrs.Changed,
	}
	if k == daemonFile {
		if c.interim, err = interimDaemon(name, now.Data, after); err != nil {
			p.refuse(err)
			return false
		}
	}
	p.out.Changes = append(p.out.Changes, c)
	return true
}

// interimDaemon is what dockerd must read between data and after, if after has no list of mirrors.
func interimDaemon(name string, data, after []byte) ([]byte, error) {
	last, err := splice.ReadDaemon(name, after, splice.Version{})
	if err != nil || last.HasList() {
		return nil, err
	}
	first, err := splice.ReadDaemon(name, data, splice.Version{})
	if err != nil {
		return nil, err
	}
	return first.ClearMirrors(), nil
}

// plannedReal reports whether a real file is changed, by whatever name.
func (p *planner) plannedReal(real string) bool {
	return slices.ContainsFunc(p.out.Changes, func(c Change) bool {
		at, err := p.tree.Follow(c.Path)
		return err == nil && at == real
	})
}

func (p *planner) planned(name string) bool {
	return slices.ContainsFunc(p.out.Changes, func(c Change) bool { return c.Path == name })
}

// unsetHosts plans that no hosts.toml below roots has anything of ours, but for
// those in keep, and those that are another engine's: containerd's list of folders may
// name Docker's as the second one, as the list that it has built in does.
func (p *planner) unsetHosts(engine string, roots, keep []string, needs map[string]string) {
	names := p.recorded(engine, hostsFile)
	for i, root := range roots {
		if root == dockerHosts && engine != Docker && i > 0 {
			continue
		}
		list, err := p.tree.Names(root)
		if err != nil {
			p.refuse(err)
			continue
		}
		for _, item := range list {
			name := path.Join(root, item.Name(), "hosts.toml")
			if e := p.journal.Find(name); e != nil && e.Engine != engine {
				continue
			}
			if p.marked(name) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		if !slices.Contains(keep, name) {
			p.unset(engine, name, hostsFile, "not wanted any more: taking our part out", needs[name])
		}
	}
}

// recorded are the paths of an engine's files that the journal knows.
func (p *planner) recorded(engine string, k kind) []string {
	var names []string
	for _, e := range p.journal.Files {
		if e.Engine == engine && e.Kind == string(k) {
			names = append(names, e.Path)
		}
	}
	return names
}

// marked reports whether a file has one of our marks. One that cannot be read has
// none: what is not in the journal and not readable is not ours to speak of.
func (p *planner) marked(name string) bool {
	f, err := p.tree.Read(name)
	return err == nil && splice.Marked(f.Data)
}

// registryName is a reference's registry: a host name or an address, with or
// without a port. It becomes the name of a folder.
var registryName = regexp.MustCompile(`^(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?$`)

// registries are the wanted ones whose names can be those of folders.
func (p *planner) registries() []string {
	var names []string
	for _, name := range p.want.Registries {
		switch {
		case len(name) > 255 || !registryName.MatchString(name):
			p.refuse(fmt.Errorf("%q is not the name of a registry, and no folder is made for it; write it as host or host:port", name))
		case strings.HasSuffix(p.want.Mirror, "://"+name) || isOwn(p.want.Mirror, name):
			p.refuse(fmt.Errorf("%s is sidemirror's own address: mirroring it would be a loop; take it out of the registries", name))
		default:
			names = append(names, name)
		}
	}
	return names
}
