package containerd

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/hostconfig/version"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// dropIn sorts after the other files of a conf.d, since the last one wins.
const dropIn = "99-sidemirror.toml"

// active reports whether CRI looks at the first folder of config_path, and why not.
func (c config) active(v version.Version) (bool, string) {
	lists := v.AtLeast(2, 1) || !v.Known() // the transfer service takes a list for one folder
	switch {
	case c.path == "" && v.AtLeast(2, 2) && len(c.local) == 0:
		return false, "config_path is empty, and containerd takes its built-in list of two folders for one (containerd#12636)"
	case c.path == "" && v.AtLeast(2, 2):
		return true, ""
	case c.path == "":
		return false, "config_path is empty"
	case strings.Contains(c.path, ":") && lists && len(c.local) == 0:
		return false, "config_path is a list, which containerd takes for one folder (containerd#12636)"
	}
	return true, ""
}

// planPath reports whether config_path is right, and plans to set it if that is wanted.
func (c *containerd) planPath(p *engine.Plan, want engine.Desired) {
	p.Restart = want.RestartContainerd
	if c.conf.disabled {
		p.State.Note(problem.Problem{
			Code: "containerd-cri-off", Path: c.config,
			Text: "CRI is off, so that config_path does not matter; nerdctl reads " + hostsFolder,
			Hint: "give it to ctr as --hosts-dir",
		})
		return
	}
	active, why := c.conf.active(c.version)
	p.State.Mirror = engine.Inactive
	switch {
	case len(c.conf.conflicts) > 0:
		conflict := c.conf.conflicts[0]
		p.State.Problem(problem.Problem{
			Code: "containerd-registry-conflict", Path: conflict.file, Line: conflict.Line,
			Text: "has " + conflict.Name + ": next to it containerd refuses config_path and runs without CRI, so that CRI does not read hosts.toml files",
			Hint: "move what it says to hosts.toml files and remove it",
		})
	case active:
		p.State.Mirror = ""
		p.Pending = c.restartPending()
		if c.daemon != nil {
			p.Probe = &engine.Probe{Folder: c.hosts(), AfterRestart: p.Pending != nil}
		}
	case !want.RestartContainerd:
		p.State.Problem(problem.Problem{
			Code: "containerd-config-path", Path: c.config, Text: "CRI does not read hosts.toml files: " + why,
			Hint: "sidemirror apply --restart-containerd (containers keep running)",
		})
	case c.conf.doubtful: // reported by crossCheck
	default:
		p.State.Problem(problem.Problem{
			Code: "containerd-config-path", Path: c.config, Text: "CRI does not read hosts.toml files: " + why, Hint: "sidemirror apply",
		})
		c.noteSecondRoot(p, want)
		c.setPath(p)
		if c.daemon != nil {
			p.Probe = &engine.Probe{Folder: c.hosts(), AfterRestart: true}
		}
	}
}

// setPath plans config_path. On 1.x a drop-in that names CRI would replace the whole of CRI's
// section (k0s#6547: nodes lost SystemdCgroup and failed). There, and if the version is not known,
// the line goes into the file that has that section. From 2.0 on drop-ins are merged.
func (c *containerd) setPath(p *engine.Plan) {
	conf := c.conf
	e := pathEntry{section: splice.SectionV2, folder: c.hosts(), version: 2, main: true}
	name, fresh := c.config, !conf.exists || conf.empty
	switch {
	case c.isVersion1():
		e.section, e.version, fresh = splice.SectionV1, 1, false
	case fresh:
	case conf.version < 2:
		p.Refuse(name, &problem.Problem{
			Path: name, Line: 1, Text: "is of version 1, as every file without a version, which containerd 2 does not take any more",
			Hint: "convert it: containerd config migrate",
		}, "containerd-config-version")
		return
	case conf.version > 2:
		e.section, e.version = splice.SectionV3, conf.version
	}
	// What is read after a drop-in of sidemirror's would win over it.
	later := conf.pathIn != "" && conf.pathIn != c.config && path.Base(conf.pathIn) != dropIn
	if pattern := c.glob(conf.imports); pattern != "" && c.version.AtLeast(2, 0) && !later {
		name, fresh, e.main = path.Join(path.Dir(pattern), dropIn), true, false
	} else if conf.pathIn != "" {
		name, e.section = conf.pathIn, conf.section
	} else if conf.criIn != "" && !c.version.AtLeast(2, 0) {
		name = conf.criIn
	}
	e.fresh = fresh
	p.Edits = append(p.Edits, engine.Edit{
		Path: name, Entry: e, Why: "CRI reads hosts.toml files only if config_path names their folder",
	})
}

// isVersion1 reports whether the configuration is of version 1, as every file without a version, and
// is read by a containerd that takes that. CRI's section must not be in a file that it imports, which
// can be of another version.
func (c *containerd) isVersion1() bool {
	return c.conf.exists && c.conf.version < 2 && c.version.Known() && !c.version.AtLeast(2, 0) &&
		(c.conf.criIn == "" || c.conf.criIn == c.config)
}

// glob returns the first of imports that a file of sidemirror's would match.
func (c *containerd) glob(imports []string) string {
	for _, pattern := range imports {
		if !path.IsAbs(pattern) {
			pattern = path.Join(path.Dir(c.config), pattern)
		}
		if ok, err := path.Match(path.Base(pattern), dropIn); ok && err == nil && c.Tree.IsDir(path.Dir(pattern)) {
			return pattern
		}
	}
	return ""
}

// noteSecondRoot reports registries that only a later folder of a list has: CRI will not look there.
func (c *containerd) noteSecondRoot(p *engine.Plan, want engine.Desired) {
	roots := c.conf.roots()
	if c.conf.path == "" {
		roots = []string{hostsFolder, dockerHosts} // what 2.2 and later have built in
	}
	for _, root := range roots[min(1, len(roots)):] {
		list, err := c.Tree.Names(root)
		if err != nil {
			continue // nothing is planned there
		}
		var only []string
		for _, item := range list {
			if !c.Tree.IsDir(path.Join(roots[0], item.Name())) && !slices.Contains(want.Registries, item.Name()) {
				only = append(only, item.Name())
			}
		}
		if len(only) > 0 {
			p.State.Note(problem.Problem{
				Code: "containerd-second-folder", Path: root,
				Text: fmt.Sprintf("with config_path = %q CRI does not look here, and only this folder has %s", roots[0], strings.Join(only, ", ")),
				Hint: "copy what CRI needs to " + roots[0],
			})
		}
	}
}

// restartPending reports that sidemirror's config_path is in the file but not in force: a run may
// have been killed between the write and the restart. A file that other programs have written to
// since is not sidemirror's to see to.
func (c *containerd) restartPending() *engine.Pending {
	if c.daemon == nil || c.conf.pathIn == "" {
		return nil
	}
	f, err := c.Tree.Read(c.conf.pathIn)
	if err != nil || !c.Journal.Find(c.conf.pathIn).IsOurs(f.Data) {
		return nil
	}
	started := c.daemon.Started()
	// A time in the future is of a clock that was set since.
	if started.IsZero() || !f.Attrs.Changed.After(started.Add(time.Second)) || f.Attrs.Changed.After(time.Now()) {
		return nil
	}
	return &engine.Pending{
		Signal: live.Signal{Engine: engine.Containerd, Verb: live.Restart}, File: c.conf.pathIn,
		Problem: problem.Problem{
			Code: "containerd-restart-pending", Path: c.conf.pathIn, Text: "config_path was set after containerd was started: CRI does not read hosts.toml files yet",
			Hint: "systemctl restart containerd (containers keep running)",
		},
	}
}

// pathEntry is sidemirror's entry in a config.toml: config_path.
type pathEntry struct {
	section []string
	folder  string
	version int
	fresh   bool // the file is sidemirror's own, or has no setting
	main    bool // it is the main configuration file, not a drop-in
}

func (pathEntry) Kind() engine.Kind { return engine.ConfigTOML }

func (e pathEntry) Add(name string, base []byte) ([]byte, error) {
	switch {
	case e.fresh && len(base) == 0:
		return splice.NewConfig(e.version, e.section, e.folder), nil
	case e.fresh && e.main:
		return nil, &problem.Problem{
			Code: "containerd-config-empty", Path: name, Text: "has comments only", Hint: `write "version = 2" into it, or remove it`,
		}
	}
	return splice.SetConfigPath(name, base, e.section, e.folder)
}

// Settled is false: an entry is planned only if config_path is not right.
func (pathEntry) Settled(string, []byte) bool { return false }

func (e pathEntry) Merge(other engine.Entry) (engine.Entry, bool) { return nil, false }
