// Package certsd plans the files of a folder in which containerd's resolver looks for hosts: one
// folder for each registry with a hosts.toml in it. containerd and, from version 28 on, Docker
// read such folders.
package certsd

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/hostconfig/version"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// Folder is a folder of registries' folders.
type Folder struct {
	Host *engine.Host
	Path string

	// Library is the version of containerd's library in the oldest program that reads the folder. It
	// decides which words a file may have.
	Library splice.Version

	// Writer is the program that writes hosts.toml files there anew at each start: "k3s". It is empty if
	// there is none.
	Writer string

	// Any says that registries that are not named go through sidemirror too: see [Folder.PlanDefault].
	Any bool

	// Later are the folders in which the engine looks if this one has none for a registry.
	Later []string

	// Explicit are the registries of which sidemirror's configuration says how they are reached.
	// CopyKeys allows copies of client keys that only root can read.
	Explicit []string
	CopyKeys bool
}

// OldestReader returns the older one of an engine's library and that of nerdctl, which reads the
// same folders if it is installed. nerdctl 2.2 has the library of containerd 2.2.
func OldestReader(ctx context.Context, h *engine.Host, library version.Version) splice.Version {
	if h.Program("nerdctl") != "" {
		nerdctl := version.Parse(h.Version(ctx, "nerdctl", "nerdctl", "nerdctl"))
		if library.AtLeast(2, 2) && !nerdctl.AtLeast(2, 2) {
			library = version.Version{Major: 2, Minor: 0}
		}
	}
	return splice.Version(library)
}

// Registry returns the folder in which the resolver looks for a registry: host_port_ if that
// exists, else host:port (containerd, core/remotes/docker/config, hostPaths).
func (f Folder) Registry(registry string) string {
	if i := strings.LastIndex(registry, ":"); i > 0 {
		if other := path.Join(f.Path, registry[:i]+"_"+registry[i+1:]+"_"); f.Host.Tree.IsDir(other) {
			return other
		}
	}
	return path.Join(f.Path, registry)
}

// File returns the path of a registry's hosts.toml.
func (f Folder) File(registry string) string { return path.Join(f.Registry(registry), "hosts.toml") }

// Plan adds a registry's hosts.toml to a plan: an edit, or the reason why there is none. mirrors
// are the user's, which the file has to name because it overrides their setting.
func (f Folder) Plan(plan *engine.Plan, registry, url string, mirrors []splice.Mirror) {
	folder, tree := f.Registry(registry), f.Host.Tree
	if other := path.Join(f.Path, defaultName); !tree.IsDir(folder) && tree.IsDir(other) && !f.oursAlone(other) {
		if f.Any {
			return // it has sidemirror's entry, or is reported
		}
		plan.Skip(registry, problem.Problem{
			Code: "registry-served-by-default", Path: path.Join(f.Path, "_default"),
			Text: fmt.Sprintf("serves %s, and a folder of its own would override that", registry),
			Hint: fmt.Sprintf("create %s if sidemirror should mirror it", folder),
		})
		return
	}
	hosts := splice.Hosts{URL: url, Registry: registry, Library: f.Library, Mirrors: mirrors}
	if other := f.later(registry); other != "" {
		f.planInstead(plan, other, folder, hosts)
	} else if f.adopt(plan, registry, folder, url, true) {
		f.planFile(plan, registry, folder, hosts, registry)
	}
}

// later returns the folder in which the engine finds a registry as long as this one has no folder for
// it, or "".
func (f Folder) later(registry string) string {
	if at := f.Registry(registry); f.Host.Tree.IsDir(at) && !f.oursAlone(at) {
		return ""
	}
	for _, root := range f.Later {
		other := Folder{Host: f.Host, Path: root}
		if at := other.Registry(registry); root != f.Path && f.Host.Tree.IsDir(at) && !other.oursAlone(at) {
			return at
		}
	}
	return ""
}

// planInstead plans a folder that hides another one of the same registry, whose certificates it names.
func (f Folder) planInstead(plan *engine.Plan, other, folder string, hosts splice.Hosts) {
	if !f.onlyCertificates(other) {
		if now, err := f.Host.Tree.Read(path.Join(other, "hosts.toml")); err == nil && splice.Marked(now.Data) {
			return // the engine comes to sidemirror by that file
		}
		plan.Skip(hosts.Registry, problem.Problem{
			Code: "registry-would-hide", Path: other,
			Text: fmt.Sprintf("would be hidden by %s: sidemirror leaves %s alone", folder, hosts.Registry),
			Hint: "move it to " + f.Path,
		})
		return
	}
	if !f.adopt(plan, hosts.Registry, other, hosts.URL, true) {
		return
	}
	ca, clients, err := Certificates(f.Host.Tree, other)
	if err != nil {
		plan.Refuse(path.Join(folder, "hosts.toml"), err, "certificate-unusable")
		return
	}
	for _, name := range ca {
		hosts.CA = append(hosts.CA, path.Join(other, name))
	}
	for _, pair := range clients {
		whole := make([]string, len(pair))
		for i, name := range pair {
			whole[i] = path.Join(other, name)
		}
		hosts.Clients = append(hosts.Clients, whole)
	}
	f.planFile(plan, hosts.Registry, folder, hosts, hosts.Registry)
}

// planFile adds the hosts.toml in a folder to a plan. what says which registries it is for.
func (f Folder) planFile(plan *engine.Plan, registry, folder string, hosts splice.Hosts, what string) {
	name, tree := path.Join(folder, "hosts.toml"), f.Host.Tree
	now, err := tree.Read(name)
	if err != nil {
		plan.Refuse(name, err, "hosts-file-unreadable")
		return
	}
	if f.Writer != "" && splice.GeneratedHeader(now.Data, f.Writer) > 0 {
		plan.State.Note(problem.Problem{
			Code: "hosts-file-managed", Path: name,
			Text: f.Writer + " writes this file anew at each start, and sidemirror watch then adds sidemirror's entry again",
		})
	}
	ours := f.Host.Journal.Find(name).IsOurs(now.Data)
	named := len(hosts.CA)+len(hosts.Clients) > 0 // those of another folder
	if len(now.Data) == 0 || ours {
		if named {
			// This folder has none.
		} else if hosts.CA, hosts.Clients, err = Certificates(tree, folder); err != nil {
			plan.Refuse(name, err, "certificate-unusable")
			return
		}
	} else if err := f.inspect(plan, now, hosts.URL); err != nil {
		plan.Refuse(name, err, "hosts-file-invalid")
		return
	} else {
		// Add refuses the file if it would switch off certificates that are in use. Those that cannot be
		// read are not.
		hosts.CA, hosts.Clients, _ = Certificates(tree, folder)
	}
	plan.Edits = append(plan.Edits, engine.Edit{
		Path: name, Entry: Entry{hosts}, Registries: []string{registry}, Others: registry == defaultName,
		Why: what + ": ask sidemirror first, and the registry itself if sidemirror does not answer",
	})
}

// inspect checks a hosts.toml that the user wrote.
func (f Folder) inspect(plan *engine.Plan, now hostfs.File, url string) error {
	file, err := splice.ReadHosts(now.Path, now.Data, f.Library)
	if err != nil {
		return err
	}
	if file.Server.Name == "https://docker.io" || file.Server.Name == "docker.io" { // microk8s ships it
		plan.State.Note(problem.Problem{
			Code: "hosts-server-wrong", Path: now.Path,
			Text: fmt.Sprintf("its server %q is not a registry: pulls of what its hosts do not have fail there", file.Server.Name),
			Hint: "write https://registry-1.docker.io",
		})
	}
	for _, host := range file.Hosts {
		if splice.SameHost(host.Name, url) && !file.Ours && f.Host.Journal.Find(now.Path) == nil {
			plan.State.Note(problem.Problem{
				Code: "entry-of-the-user", Path: now.Path, Text: host.Name + " is there already, and sidemirror did not write it: it stays", Hint: "",
			})
		}
		if err := f.checkCA(now.Path, host.CA); err != nil {
			return err
		}
	}
	return f.checkCA(now.Path, file.Server.CA)
}

// checkCA refuses a file that names a certificate that does not exist: containerd fails every pull
// with it.
func (f Folder) checkCA(name string, names []string) error {
	for _, ca := range names {
		if !path.IsAbs(ca) {
			ca = path.Join(path.Dir(name), ca)
		}
		if !f.Host.Tree.IsFile(ca) {
			return &problem.Problem{
				Code: "certificate-missing", Path: name, Text: fmt.Sprintf("names the certificate %s, which does not exist, so that every pull fails", ca),
				Hint: "correct the name or remove the line",
			}
		}
	}
	return nil
}

// Entry is sidemirror's entry in a hosts.toml.
type Entry struct{ splice.Hosts }

// Kind is engine.HostsTOML.
func (Entry) Kind() engine.Kind { return engine.HostsTOML }

// Merge returns an entry for a file that two registries or two engines share. It fails if they
// need different mirrors.
func (e Entry) Merge(other engine.Entry) (engine.Entry, bool) {
	o, ok := other.(Entry)
	if !ok || e.URL != o.URL || e.Server != o.Server || !slices.EqualFunc(e.Mirrors, o.Mirrors, sameMirror) {
		return nil, false
	}
	if e.Registry != o.Registry {
		e.Registry = "" // the file is for several
	}
	if library := version.Version(e.Library); library.AtLeast(o.Library.Major, o.Library.Minor) {
		e.Library = o.Library // words that only one reader knows make the other reject the file
	}
	return e, true
}

func sameMirror(a, b splice.Mirror) bool {
	return a.URL == b.URL && a.SkipVerify == b.SkipVerify && slices.Equal(a.CA, b.CA) && slices.EqualFunc(a.Clients, b.Clients, slices.Equal)
}
