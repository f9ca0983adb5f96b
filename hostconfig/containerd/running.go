package containerd

import (
	"context"
	"fmt"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/version"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// running is what the running containerd has in force. It reads its files at its start, and they can
// have been edited since.
type running struct {
	info    live.Info
	version version.Version
	known   bool   // containerd reports its config_path, as it does from 2.4 on
	path    string // its config_path
	newer   string // a file of its configuration that was edited after its start, "" if none was
}

// askRunning asks the running containerd for its version and its config_path.
func (c *containerd) askRunning(ctx context.Context) {
	if c.daemon == nil {
		return
	}
	info, err := c.daemon.Info(ctx)
	if err != nil {
		return // what the files say is all that is known
	}
	c.running.info = info
	if info.KnowsConfigPath {
		c.running.known, c.running.path = true, info.ConfigPath
		if info.ConfigPath == builtIn {
			c.running.path = ""
		}
	}
}

// findNewer looks for a file that is newer than the running containerd.
func (c *containerd) findNewer() {
	if c.daemon == nil {
		return
	}
	started := c.daemon.Started()
	// The time of a start is known to a second. A time in the future is of a clock that was set since.
	if e := c.conf.edited; !started.IsZero() && e.After(started.Add(time.Second)) && e.Before(time.Now()) {
		c.running.newer = c.conf.editedIn
	}
}

// inForce returns the configuration with the config_path of the running containerd.
func (c *containerd) inForce() config {
	conf := c.conf
	if c.running.known {
		conf.path = c.running.path
	}
	return conf
}

// runs returns the version of the running containerd, or else of the installed one.
func (c *containerd) runs() version.Version {
	if c.running.version.Known() {
		return c.running.version
	}
	return c.version
}

// folders returns those in which hosts.toml files have an effect: the one of the configuration, which
// is read from the next start on, and the one that the running containerd reads.
func (c *containerd) folders() []string {
	folders := []string{c.hosts()}
	now := c.inForce()
	if active, _ := now.active(c.runs()); active && now.folder() != folders[0] {
		folders = append(folders, now.folder())
	}
	return folders
}

// planRunning corrects what the files say about CRI's pulls by what is known of the running
// containerd.
func (c *containerd) planRunning(p *engine.Plan) {
	next, _ := c.conf.active(c.version)
	now, why := c.inForce().active(c.runs())
	switch {
	case c.daemon == nil || len(c.conf.conflicts) > 0:
	case !c.running.known:
		if c.running.newer != "" && p.Pending == nil {
			p.State.Mirror = engine.Unknown
			p.State.Problem(problem.Problem{
				Code: "containerd-config-newer", Path: c.running.newer,
				Text: "was edited after containerd was started: what containerd has in force is not known",
				Hint: "systemctl restart containerd (containers keep running)",
			})
		}
	case now == next && (!now || c.inForce().folder() == c.hosts()):
		p.Pending = nil
	case now:
		p.State.Mirror = ""
		p.Probe = &engine.Probe{Folder: c.folders()[len(c.folders())-1]}
		p.State.Problem(problem.Problem{
			Code: "containerd-restart-changes", Path: c.config,
			Text: fmt.Sprintf("containerd runs with config_path = %q, and this file sets %q from its next start on", c.running.path, c.conf.path),
			Hint: "check config_path in this file",
		})
	case p.Pending == nil:
		p.State.Mirror, p.Probe = engine.Inactive, nil
		p.State.Problem(problem.Problem{
			Code: "containerd-restart-needed", Path: c.config,
			Text: "CRI does not read hosts.toml files yet: of the running containerd " + why,
			Hint: "systemctl restart containerd (containers keep running)",
		})
	}
}
