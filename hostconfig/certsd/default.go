package certsd

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// defaultName is the folder that serves every registry without a folder of its own.
const defaultName = "_default"

// PlanDefault adds to a plan what sends registries that are not named through sidemirror: the
// hosts.toml of _default, and that of each registry whose folder has one already. later are the
// folders in which the engine looks after this one.
func (f Folder) PlanDefault(plan *engine.Plan, url string, named []string, later ...string) {
	at := path.Join(f.Path, defaultName)
	theirs := f.Host.Tree.IsDir(at) && !f.oursAlone(at) // it hides what it hides already
	if hidden := f.hidden(later); hidden != "" && !theirs {
		plan.State.Note(problem.Problem{
			Code: "default-would-hide", Path: hidden,
			Text: "would be hidden by " + at + ": registries that sidemirror's configuration does not name are not mirrored",
			Hint: "move it to " + f.Path,
		})
		return
	}
	f.planFile(plan, defaultName, at, splice.Hosts{URL: url, Library: f.Library}, "registries without a folder of their own")
	f.planOthers(plan, url, named)
}

// hidden returns a registry's folder in one of the later folders that a _default in this one would
// hide, or "". The engine takes the first folder that has either.
func (f Folder) hidden(later []string) string {
	for _, root := range later {
		if root == f.Path {
			continue
		}
		list, err := f.Host.Tree.Names(root)
		if err != nil {
			return root
		}
		for _, item := range list {
			folder := path.Join(root, item.Name())
			if f.Host.Tree.IsDir(folder) && !f.Host.Tree.IsDir(path.Join(f.Path, item.Name())) && !f.oursAlone(folder) {
				return folder
			}
		}
	}
	return ""
}

// oursAlone reports whether a folder holds nothing but a hosts.toml that sidemirror created.
func (f Folder) oursAlone(folder string) bool {
	list, err := f.Host.Tree.Names(folder)
	if err != nil || len(list) != 1 || list[0].Name() != "hosts.toml" {
		return false
	}
	entry := f.Host.Journal.Find(path.Join(folder, "hosts.toml"))
	return entry != nil && !entry.Existed
}

// planOthers plans the hosts.toml of registries that are not named and have one: their folder takes
// them away from _default. A registry with TLS settings of its own is left to the engine, which alone
// has them.
func (f Folder) planOthers(plan *engine.Plan, url string, named []string) {
	list, err := f.Host.Tree.Names(f.Path)
	if err != nil {
		plan.Refuse(f.Path, err, "hosts-folder-unreadable")
		return
	}
	for _, item := range list {
		registry := registryOf(item.Name())
		folder := path.Join(f.Path, item.Name())
		if slices.Contains(named, registry) || CheckName(registry, url) != nil || splice.IsLoopback("http://"+registry) ||
			f.Registry(registry) != folder || f.oursAlone(folder) {
			continue
		}
		name := path.Join(folder, "hosts.toml")
		if !f.Host.Tree.IsFile(name) {
			f.noteOwnTLS(plan, registry, folder)
			continue
		}
		now, err := f.Host.Tree.Read(name)
		if err != nil {
			plan.Refuse(name, err, "hosts-file-unreadable")
			continue
		}
		if file, err := splice.ReadHosts(name, now.Data, f.Library); err == nil && file.OwnTLS(url) {
			f.noteOwnTLS(plan, registry, name)
			continue
		}
		f.planFile(plan, registry, folder, splice.Hosts{URL: url, Registry: registry, Library: f.Library}, registry)
	}
}

func (f Folder) noteOwnTLS(plan *engine.Plan, registry, at string) {
	if ca, clients, err := Certificates(f.Host.Tree, f.Registry(registry)); err == nil && len(ca)+len(clients) == 0 && !f.Host.Tree.IsFile(at) {
		return // an empty folder takes the registry away from _default, which is what it is for
	}
	plan.State.Note(problem.Problem{
		Code: "registry-with-own-tls", Path: at,
		Text: fmt.Sprintf("has TLS settings for %s that sidemirror does not have: the engine pulls from it directly", registry),
		Hint: fmt.Sprintf("add [registry.%q] with ca, or cert and key, to sidemirror's configuration", registry),
	})
}

// registryOf returns the registry that a folder is for: host_port_ stands for host:port.
func registryOf(folder string) string {
	if rest, ok := strings.CutSuffix(folder, "_"); ok {
		if i := strings.LastIndex(rest, "_"); i > 0 {
			return rest[:i] + ":" + rest[i+1:]
		}
	}
	return folder
}
