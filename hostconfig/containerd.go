package hostconfig

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/splice"
)

const (
	containerdFolder = "/etc/containerd"
	containerdConfig = containerdFolder + "/config.toml"
	containerdHosts  = containerdFolder + "/certs.d"
)

type containerd struct {
	*planner
	config  string // its configuration file
	running *process
	conf    criConfig
	err     error // of reading conf
}

func (p *planner) newContainerd() *containerd {
	c := &containerd{planner: p, config: containerdConfig, running: runningContainerd(p.tree)}
	p.tree.Watch("/run/containerd/containerd.sock") // made anew at each start
	args := p.commandLine(c.running, "containerd.service")
	if name := flag(args, "--config", "-c"); path.IsAbs(name) && !inHome(name) {
		c.config = path.Clean(name)
	}
	return c
}

func (*containerd) name() string       { return Containerd }
func (*containerd) folder() string     { return containerdFolder }
func (*containerd) binary() string     { return "containerd" }
func (*containerd) packages() []string { return []string{"containerd.io", "containerd"} }
func (c *containerd) runs() bool       { return c.running != nil }

// plan writes hosts.toml files, which need no restart, into the folder that
// config_path names. Where it names none, CRI (Kubernetes) does not look at them, and
// only a change of config.toml and a restart can mend that: see planPath.
func (c *containerd) plan(ctx context.Context) []State {
	state := State{Engine: Containerd, Present: c.present(c), Running: c.runs(), Config: c.config}
	roots := []string{containerdHosts}
	var keep []string
	if state.Present {
		state.Version = c.version(ctx, c)
		if name := c.another(); name != "" && c.host.Versions[Containerd] == "" {
			state.Version = ""
			state.note(fmt.Sprintf("the containerd that runs is %s, not %s: its version is not known, and what holds for the oldest is done", name, c.planner.binary(c)))
		}
		c.conf, c.err = c.effective(parseVersion(state.Version))
		if c.err != nil {
			c.refuse(c.err)
		} else if c.conf = c.crossCheck(ctx, &state, c.conf); len(c.conf.roots()) > 0 {
			roots = c.conf.roots()
		}
		state.Hosts = roots[0]
		keep = c.setAll(&state, roots[0])
		if c.err == nil {
			c.planPath(&state, c.conf)
		}
		c.others(&state, c.config, roots[0])
	} else {
		c.undoConfig()
	}
	states := []State{state}
	for _, h := range homes {
		if c.tree.IsDir(h.folder) {
			other := State{Engine: Containerd, Home: h.name, Present: true, Hosts: h.hosts, Mirror: "hosts.toml"}
			keep = append(keep, c.setAll(&other, h.hosts)...)
			c.others(&other, "", h.hosts)
			states = append(states, other)
			roots = append(roots, h.hosts)
		}
	}
	c.unsetHosts(Containerd, roots, keep, nil)
	if !state.Present && len(states) > 1 {
		states = states[1:]
	}
	return append(states, c.k0s()...)
}

// another is the program that runs, where that is not the one that we would ask.
func (c *containerd) another() string {
	installed := c.planner.binary(c)
	if c.running == nil || installed == "" || !path.IsAbs(c.running.args[0]) {
		return ""
	}
	name, err := c.tree.Follow(c.running.args[0])
	if real, err2 := c.tree.Follow(installed); err != nil || err2 != nil || real != name {
		return c.running.args[0]
	}
	return ""
}

// setAll plans the hosts.toml of each registry, and answers with those wanted.
func (c *containerd) setAll(state *State, root string) (keep []string) {
	for _, registry := range c.registries() {
		if name, _ := c.setHosts(Containerd, state, root, registry, splice.Hosts{URL: c.want.Mirror}); name != "" {
			keep = append(keep, name)
		}
	}
	return keep
}

func (c *containerd) undo() {
	roots := []string{containerdHosts}
	if conf, err := c.effective(version{}); err == nil && len(conf.roots()) > 0 {
		roots = conf.roots()
	}
	for _, h := range homes {
		roots = append(roots, h.hosts)
	}
	c.unsetHosts(Containerd, roots, nil, nil)
	c.undoConfig()
}

func (c *containerd) undoConfig() {
	names := c.recorded(Containerd, configFile)
	if c.marked(c.config) && !slices.Contains(names, c.config) {
		names = append(names, c.config)
	}
	for _, name := range names {
		c.unset(Containerd, name, configFile, "taking config_path out; containerd forgets it when it is next started", "")
	}
}

// active reports whether CRI looks at the first folder of config_path, and why not.
func (c criConfig) active(v version) (bool, string) {
	lists := v.atLeast(2, 1) || v.unknown() // the transfer service takes a list for one folder
	switch {
	case c.path == "" && v.atLeast(2, 2) && !c.local:
		return false, "config_path is empty, and the built-in list of two folders is taken for one (containerd #12636)"
	case c.path == "" && v.atLeast(2, 2):
		return true, ""
	case c.path == "":
		return false, "config_path is empty"
	case strings.Contains(c.path, ":") && lists && !c.local:
		return false, "config_path is a list, which is taken for one folder (containerd #12636)"
	}
	return true, ""
}

// planPath sees to config_path: it is reported, and set where that is asked for.
func (c *containerd) planPath(state *State, conf criConfig) {
	v := parseVersion(state.Version)
	if conf.disabled {
		state.Mirror = "hosts.toml; CRI is off"
		state.note("CRI is switched off in " + c.config + ": config_path does not matter; nerdctl reads " + containerdHosts + ", ctr takes it by --hosts-dir")
		return
	}
	active, why := conf.active(v)
	state.Mirror = "mirror inactive for CRI"
	switch {
	case conf.mirrors != "":
		state.note(fmt.Sprintf("mirror inactive for CRI: %s has registry.mirrors, beside which containerd refuses config_path and does without CRI; move them to hosts.toml files, remove the section and run again", conf.mirrors))
	case active && !c.restartPending(conf.pathIn):
		state.Mirror = "hosts.toml"
		c.askLater(state, false)
	case active && !c.want.RestartContainerd:
		state.note("mirror inactive for CRI, because config_path was set after containerd was started; to mend it: systemctl restart containerd (containers go on running)")
	case active:
		c.out.restart, c.out.pending = true, true
		c.askLater(state, true)
	case !c.want.RestartContainerd:
		state.note("mirror inactive for CRI, because " + why + "; to mend it: sidemirror apply --restart-containerd (containers go on running)")
	case conf.doubtful: // which is said
	default:
		c.warnOfSecondRoot(state, conf)
		c.setPath(state, v, conf)
		c.askLater(state, true)
	}
}

// askLater has CRI asked, when all is written, whether it looks where config_path says.
func (c *containerd) askLater(state *State, restart bool) {
	if c.running == nil {
		return
	}
	socket := cmp.Or(flag(c.running.args, "--address", "-a"), c.conf.address, "/run/containerd/containerd.sock")
	c.out.asks = append(c.out.asks, ask{engine: Containerd, folder: state.Hosts, socket: socket, restart: restart})
}

// restartPending reports whether our config_path is in the file but not in force:
// a run may have been killed between the write and the restart. A file that others have
// written to since is theirs to see to.
func (c *containerd) restartPending(name string) bool {
	if c.running == nil || name == "" {
		return false
	}
	entry := c.journal.Find(name)
	f, err := c.tree.Read(name)
	if err != nil || !entry.IsOurs(f.Data) {
		return false
	}
	started := startedAt(c.tree, c.running.pid)
	// A time to come is of a clock that was set since, and would never be behind us.
	return !started.IsZero() && f.Attrs.Changed.After(started.Add(time.Second)) && f.Attrs.Changed.Before(time.Now())
}
