// Package containerd finds out how containerd on a host is configured, and plans what it needs to
// pull through sidemirror.
package containerd

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/certsd"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/process"
	"github.com/sidemirror/sidemirror/hostconfig/snapshotter"
	"github.com/sidemirror/sidemirror/hostconfig/unitfile"
	"github.com/sidemirror/sidemirror/hostconfig/version"
	"github.com/sidemirror/sidemirror/internal/problem"
)

const (
	folder      = "/etc/containerd"
	configTOML  = folder + "/config.toml"
	hostsFolder = folder + "/certs.d"
	dockerHosts = "/etc/docker/certs.d"
)

// Engines returns the containerds that can be on a host: its own, and those of distributions.
func Engines(h *engine.Host) []engine.Engine {
	list := []engine.Engine{&containerd{Host: h}}
	for _, d := range distributions {
		list = append(list, &bundled{Host: h, distribution: d})
	}
	return list
}

// containerd is the host's own.
type containerd struct {
	*engine.Host
	daemon  live.Daemon // nil if none runs
	config  string      // its configuration file
	conf    config
	err     error // why conf cannot be read
	running running
	version version.Version
}

// Name is "containerd".
func (*containerd) Name() string { return engine.Containerd }

// Detect looks for containerd, its configuration, and what it has in force.
func (c *containerd) Detect(ctx context.Context) (engine.State, bool) {
	s := engine.State{Engine: engine.Containerd}
	c.Tree.Watch("/run/containerd/containerd.sock") // made anew at each start
	if c.Running != nil {
		c.daemon = c.Running.Daemon(ctx, engine.Containerd)
	}
	s.Running = c.daemon != nil
	s.Stopped = c.Running != nil && c.daemon == nil && c.Running.Stopped(ctx, engine.Containerd)
	s.Present = s.Running || c.Installed(engine.Containerd, "containerd", folder)
	c.config, c.err = c.configFile()
	if !s.Present {
		return s, !c.onlyBundled()
	}
	s.Config = c.config
	c.askRunning(ctx)
	c.findVersion(ctx, &s)
	if c.err == nil {
		c.conf, c.err = readConfig(c.Tree, c.config, c.version)
	}
	if c.err == nil {
		s.Known = c.crossCheck(ctx, &s)
		c.findNewer()
		for _, folder := range c.folders() {
			if c.err == nil {
				c.err = c.Tree.Trusted(folder)
			}
		}
	}
	if c.running.known {
		s.Known = engine.KnownByEngine
	}
	folders := c.folders()
	s.Hosts = folders[len(folders)-1]
	if f, err := c.Tree.Read(c.config); err == nil {
		if p := engine.ManagedBy(c.config, f.Data); p != nil {
			s.Note(*p)
		}
	}
	noteSpegel(c.Host, &s)
	return s, true
}

// onlyBundled reports whether the host has containerds of distributions, so that the absence of one
// of its own is nothing to report.
func (c *containerd) onlyBundled() bool {
	return slices.ContainsFunc(distributions, func(d distribution) bool { return d.name != k0sName && d.present(c.Host) })
}

// hosts returns the folder in which CRI looks for hosts.toml files, as the files have it.
func (c *containerd) hosts() string { return c.conf.folder() }

// configFile returns the file of the running containerd, or else the one that it would be started
// with.
func (c *containerd) configFile() (string, error) {
	var args []string
	if c.daemon != nil {
		args = c.daemon.Args()
	} else if service, err := unitfile.Read(c.Tree, "containerd.service"); err != nil {
		return configTOML, err
	} else {
		args = service.Args
	}
	name := process.Flag(args, "--config", "-c")
	if name == "" && len(process.Flags(args, "--config", "-c")) > 0 {
		name = `""` // a variable that is not set
	}
	switch {
	case name == "" && c.daemon == nil && slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "$") }):
		name = "$" // one of them may be the flag
		fallthrough
	case name != "" && (!path.IsAbs(name) || c.daemon == nil && unitfile.Unresolved(name)):
		return configTOML, &problem.Problem{
			Code: "containerd-config-unresolved", Path: "containerd.service",
			Text: "containerd's --config is not an absolute path that can be known from outside: " + name,
			Hint: "write the absolute path in containerd.service, or start containerd",
		}
	case name == "" || ownerOf(process.Process{Args: args}) != "":
		return configTOML, nil
	}
	return path.Clean(name), nil
}

// findVersion finds the version of the installed program. If another one runs, that one's counts.
func (c *containerd) findVersion(ctx context.Context, s *engine.State) {
	s.Version = c.Version(ctx, engine.Containerd, "containerd", "containerd.io", "containerd")
	defer func() { c.version = version.Parse(s.Version) }()
	if c.Versions[engine.Containerd] != "" {
		return
	}
	running := version.Find(c.running.info.Version)
	c.running.version = version.Parse(running)
	switch name := c.another(); {
	case name != "" && running != "":
		s.Version = running
	case name != "":
		s.Version = ""
		s.Note(problem.Problem{
			Code: "containerd-program-unknown", Path: name,
			Text: fmt.Sprintf("this containerd runs, and not the installed %s: its version is not known, and sidemirror does what is right for the oldest", c.Program("containerd")),
		})
	case s.Version == "":
		s.Version = running
	case running != "" && running != s.Version:
		s.Note(problem.Problem{
			Code: "containerd-upgrade-pending", Text: fmt.Sprintf("containerd %s is installed, and %s is still running", s.Version, running),
			Hint: "systemctl restart containerd (containers keep running)",
		})
	}
}

// oldest returns the older one of the versions that are installed and that run.
func (c *containerd) oldest() version.Version {
	if v := c.running.version; v.Known() && !v.AtLeast(c.version.Major, c.version.Minor) {
		return v
	}
	return c.version
}

// another returns the program that runs if it is not the installed one.
func (c *containerd) another() string {
	installed := c.Program("containerd")
	if c.daemon == nil || installed == "" {
		return ""
	}
	running := c.daemon.Args()[0]
	if !path.IsAbs(running) {
		return ""
	}
	name, err := c.Tree.Follow(running)
	if real, err2 := c.Tree.Follow(installed); err != nil || err2 != nil || real != name {
		return running
	}
	return ""
}

// Plan asks for hosts.toml files, which need no restart, in the folder that config_path names. If it
// names none, CRI (Kubernetes) does not read them, and only a change of config.toml and a restart
// can change that: see planPath.
func (c *containerd) Plan(ctx context.Context, s engine.State, want engine.Desired) engine.Plan {
	p := engine.Plan{State: s, Folders: []string{hostsFolder}, Configs: []engine.Config{{Path: c.config, Kind: engine.ConfigTOML}}}
	for i, root := range append(c.conf.roots(), c.folders()...) {
		// What is in Docker's folder is Docker's, although the list may name it: the built-in one does.
		if (i == 0 || root != dockerHosts) && !slices.Contains(p.Folders, root) {
			p.Folders = append(p.Folders, root)
		}
	}
	if !s.Present || !slices.Contains(want.Engines, engine.Containerd) {
		return p
	}
	if c.err != nil {
		p.Hold = problem.Coded(c.err, "containerd-config-unreadable")
		return p
	}
	p.State.Through, p.Retain = []engine.Kind{engine.HostsTOML}, []engine.Kind{engine.ConfigTOML}
	for _, folder := range c.folders() {
		hosts := certsd.Folder{Host: c.Host, Path: folder, Library: certsd.OldestReader(ctx, c.Host, c.oldest()), Any: want.Any,
			Later: c.after(folder), Explicit: want.Explicit, CopyKeys: want.CopyClientKeys}
		for _, registry := range want.Registries {
			hosts.Plan(&p, registry, want.Mirror, nil)
		}
		if want.Any {
			hosts.PlanDefault(&p, want.Mirror, want.Registries)
		}
	}
	before := len(p.State.Problems)
	if c.planPath(&p, want); !c.conf.disabled {
		c.planRunning(&p)
	}
	c.forCRI(&p, before, want)
	snapshotter.Report(c.Host, &p.State, want.Mirror, p.Folders)
	return p
}

// after returns the folders in which programs look after folder: the rest of config_path, and Docker's
// if nerdctl is installed.
func (c *containerd) after(folder string) []string {
	var list []string
	for _, conf := range []config{c.conf, c.inForce()} {
		if roots := conf.roots(); slices.Contains(roots, folder) {
			list = append(list, roots...)
		}
	}
	if c.Program("nerdctl") != "" {
		list = append(list, dockerHosts)
	}
	return list
}
