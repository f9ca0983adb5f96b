package certsd

import (
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
// hosts.toml of _default, and that of each registry that has a folder already.
func (f Folder) PlanDefault(plan *engine.Plan, url string, named []string) {
	at := path.Join(f.Path, defaultName)
	theirs := f.Host.Tree.IsDir(at) && !f.oursAlone(at) // it hides what it hides already
	if hidden := f.hidden(url); hidden != "" && !theirs {
		plan.State.Note(problem.Problem{
			Code: "default-would-hide", Path: hidden,
			Text: "would be hidden by " + at + ": registries that sidemirror's configuration does not name are not mirrored",
			Hint: "move it to " + f.Path,
		})
		return
	}
	f.planFile(plan, defaultName, at, splice.Hosts{URL: url, Library: f.Library}, "registries without a folder of their own")
	f.planOthers(plan, url, named)
	f.planLater(plan, url, named)
	f.setApart(plan)
}

// setApart notes which registries have a folder of their own, which _default does not serve.
func (f Folder) setApart(plan *engine.Plan) {
	list, err := f.Host.Tree.Names(f.Path)
	if err != nil {
		return // planOthers has reported it
	}
	for _, item := range list {
		if registry := registryOf(item.Name()); f.Host.Tree.IsDir(f.Registry(registry)) {
			plan.Apart = append(plan.Apart, registry)
		}
	}
}

// planLater plans folders for the registries that _default would hide.
func (f Folder) planLater(plan *engine.Plan, url string, named []string) {
	for _, root := range f.Later {
		list, err := f.Host.Tree.Names(root)
		if err != nil {
			return // hidden has reported it
		}
		for _, item := range list {
			registry := registryOf(item.Name())
			if !slices.Contains(named, registry) && f.later(registry) == path.Join(root, item.Name()) {
				f.planInstead(plan, f.later(registry), path.Join(f.Path, registry), splice.Hosts{URL: url, Registry: registry, Library: f.Library})
			}
		}
	}
}

// hidden returns a registry's folder in one of the later folders that a _default in this one would
// hide, or "". The engine takes the first folder that has either. A folder whose settings sidemirror
// can use is not hidden: it gets one in this folder, with the same certificates.
func (f Folder) hidden(url string) string {
	for _, root := range f.Later {
		if root == f.Path {
			continue
		}
		list, err := f.Host.Tree.Names(root)
		if err != nil {
			return root
		}
		for _, item := range list {
			folder := path.Join(root, item.Name())
			if f.later(registryOf(item.Name())) == folder && !f.canReplace(registryOf(item.Name()), folder, url) {
				return folder
			}
		}
	}
	return ""
}

// canReplace reports whether a folder of this one can do what a registry's folder in a later one does.
func (f Folder) canReplace(registry, folder, url string) bool {
	if CheckName(registry, url) != nil || splice.IsLoopback("http://"+registry) || !f.onlyCertificates(folder) {
		return false
	}
	a, err := f.settings(registry, folder, url)
	return err == nil && a != nil && (slices.Contains(f.Explicit, registry) || f.readFiles(a) == nil)
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

// planOthers plans the hosts.toml of registries that are not named and have a folder, which takes them
// away from _default. An empty folder is left alone: that is what it is for.
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
		if f.onlyCertificates(folder) {
			if ca, clients, err := Certificates(f.Host.Tree, folder); err == nil && len(ca)+len(clients) == 0 {
				continue
			}
		}
		if f.adopt(plan, registry, folder, url, false) {
			f.planFile(plan, registry, folder, splice.Hosts{URL: url, Registry: registry, Library: f.Library}, registry)
		}
	}
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
