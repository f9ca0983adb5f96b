// Package hostconfig writes the configuration of a host's container engines so that they ask
// sidemirror first, and takes it back.
//
// [Make] looks at the host and says what would have to change, [Apply] changes it, [Revert] takes
// everything back. Files are edited by splice: all that is not sidemirror's keeps its bytes. What
// was there before is in a journal on the host before the first edit, so that a run that is killed
// at any instant is finished or undone by the next one.
package hostconfig

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/hostconfig/buildkit"
	"github.com/sidemirror/sidemirror/hostconfig/containerd"
	"github.com/sidemirror/sidemirror/hostconfig/containersimage"
	"github.com/sidemirror/sidemirror/hostconfig/docker"
	"github.com/sidemirror/sidemirror/hostconfig/egress"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/journal"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/ownunit"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// Host is the host to look at. Root must be set. It is for one goroutine at a time.
type Host struct {
	// Root is "/" or the folder that a host's tree is under. Nothing outside it is read or written,
	// symbolic links notwithstanding; absolute ones start at Root.
	Root string

	// Present names engines that count as installed although neither their program nor their
	// configuration is found.
	Present []string

	// Versions gives an engine's version ("28.5.2") if it is known. Others are asked of the program
	// (if the host is the running one) or looked up in Debian's package database.
	Versions map[string]string

	// Units is the service manager of this host. If it is nil, no engine is signalled.
	Units Units

	// Running is what runs on the host. If it is nil, that is found out with the help of Units if
	// Root is "/", and else nothing runs.
	Running live.Host

	// Probe makes Apply ask the engines that run whether they read what was written.
	Probe bool

	// Hurry makes Apply fail at once, and not wait, while another sidemirror changes the host.
	Hurry bool

	step     func(op, path string) error
	patience time.Duration // with an engine that is probed; 0 for the usual one
	system   *system       // made once, for what it remembers
}

// Change is one file that has to change.
type Change struct {
	Engine string
	Kind   engine.Kind
	Path   string // as the host names it, whatever Root is

	// Before and After are the whole file; nil means that there is none.
	Before, After []byte

	Why string

	// Needs is the path of a change without which this one must not be made, or "".
	Needs string

	// Restores says that the change takes sidemirror's entry out.
	Restores bool

	// Changed is when Before was written, by the kernel's clock. It is zero if there is no file.
	Changed time.Time

	home    string // of the engine; see [engine.State]
	url     string
	engines []string // all that want the entry
	paths   []string // all names by which they do
	base    []byte   // Before without the entry
	interim []byte   // what dockerd must read on the way; see [applier.clearDocker]
}

// Plan is what must be done to a host. It is settled if there are no Changes and no Signals.
type Plan struct {
	// Mirror is sidemirror's address, as [engine.Desired] has it.
	Mirror string

	Engines []engine.State
	Changes []Change

	// Refused are files that should change and cannot, and other reasons for which the host cannot be
	// as wanted. Those of an engine are among the problems of its state too.
	Refused []*problem.Problem

	// Adopted say how the engines reach registries. sidemirror reaches them in the same way.
	Adopted []engine.Adopted

	// Notes are about the host as a whole, and keep nothing from being done.
	Notes []*problem.Problem

	// Egress is the forward proxy of the engines that are configured.
	Egress egress.Found

	// Watch are the paths whose change can change the plan, whether they exist or not. One with a
	// slash at its end stands for all that is in that folder.
	Watch []string

	allowPort bool // an unprivileged port was allowed, which the journal has to remember

	named   []string // engines that count as installed because they were named
	probes  []probeOf
	pending []live.Signal   // needed although no file changes
	restart map[string]bool // engines that may be restarted
	running map[string]bool // engines that run and can be signalled
}

// Signals returns the signals that the engines will get.
func (p Plan) Signals() []live.Signal {
	list := slices.Clone(p.pending)
	for _, c := range p.Changes {
		s, ok := p.signal(c)
		if ok && p.running[s.Engine] && !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b live.Signal) int { return -strings.Compare(a.Engine, b.Engine) })
	return list
}

// signal returns the signal that an engine needs after a change. containerd's configuration is not
// worth a restart when it is restored: containerd forgets it at its next start. That of a distribution
// is restarted by the distribution.
func (p Plan) signal(c Change) (live.Signal, bool) {
	switch {
	case c.Kind == engine.DaemonJSON:
		return live.Signal{Engine: engine.Docker, Verb: live.Reload}, true
	case c.Kind == engine.RegistriesConf && slices.Contains(c.engines, engine.CRIO):
		return live.Signal{Engine: engine.CRIO, Verb: live.Reload}, true
	case c.Kind == engine.BuildkitdTOML && !c.Restores && p.restart[engine.BuildKit]:
		return live.Signal{Engine: engine.BuildKit, Verb: live.Restart}, true
	case c.Kind == engine.DropIn:
		return live.Signal{Engine: engine.Sidemirror, Verb: live.Reload}, true
	case c.Kind == engine.ConfigTOML && c.home == "" && !c.Restores && p.restart[engine.Containerd]:
		return live.Signal{Engine: engine.Containerd, Verb: live.Restart}, true
	}
	return live.Signal{}, false
}

// Only returns the part of the plan that makes the changes for which keep is true, without what
// needs another change, and without Refused.
func (p Plan) Only(keep func(Change) bool) Plan {
	dropped := make(map[string]bool)
	for _, c := range p.Changes {
		dropped[c.Path] = !keep(c)
	}
	for range p.Changes { // what needs a change may be needed itself
		for _, c := range p.Changes {
			dropped[c.Path] = dropped[c.Path] || dropped[c.Needs]
		}
	}
	p.Changes = slices.DeleteFunc(slices.Clone(p.Changes), func(c Change) bool { return dropped[c.Path] })
	p.Refused = nil
	return p
}

// Result is what was done. A file is in at most one of the lists.
type Result struct {
	Written  []string      // with sidemirror's entry in them now
	Restored []string      // without it again
	Signals  []live.Signal // that engines got and acted on

	// Probed are the engines that were asked to pull a probe image, and came to sidemirror for it.
	// Warnings are of those that did not, and why.
	Probed   []string
	Warnings []*problem.Problem
}

// open opens the host's tree.
func (h *Host) open() (*hostfs.Host, error) {
	t, err := hostfs.Open(h.Root)
	if err != nil {
		return nil, err
	}
	t.Step = h.step
	return t, nil
}

// Make compares the host with want. It only reads. The error is for what keeps it from looking at
// all; a file that is refused is in the plan. A user who is not root gets a plan of what they may
// read, and a note.
func Make(ctx context.Context, h *Host, want engine.Desired) (Plan, error) {
	t, err := h.open()
	if err != nil {
		return Plan{}, err
	}
	defer t.Close()
	j, reverting := journal.Salvage(t), len(want.Engines) == 0
	if len(j.Problems) > 0 && !reverting && !j.Hidden() {
		return Plan{}, errors.Join(j.Problems...)
	}
	c := newComposer(&engine.Host{Tree: t, Journal: j, Running: h.running(t), Named: h.Present, Versions: h.Versions}, want)
	for _, e := range slices.Concat(docker.Engines(c.host), containerd.Engines(c.host), containersimage.Engines(c.host), buildkit.Engines(c.host), ownunit.Engines(c.host)) {
		if !slices.Contains(want.Leave, e.Name()) {
			c.look(ctx, e)
		}
	}
	for _, err := range j.Problems {
		if !j.Hidden() || reverting {
			c.refuse(nil, problem.Coded(err, "journal-damaged"))
		}
	}
	if unix.Geteuid() != 0 && (j.Hidden() || h.Root == "/") {
		c.out.Notes = append(c.out.Notes, &problem.Problem{
			Code: "not-root", Text: "only root sees whether the engines run, and what their files held before sidemirror", Hint: "run as root to see everything",
		})
	}
	plan := c.compose()
	plan.Egress = egress.Find(ctx, c.host, want.Engines, h.egressUnits())
	plan.Notes = append(plan.Notes, plan.Egress.Notes...)
	plan.Watch = slices.DeleteFunc(t.Seen(), func(name string) bool { return strings.HasPrefix(name, journal.Folder) })
	return plan, nil
}

// Revert takes everything of sidemirror's out again that it can reach, by what is left of the journal
// and, as far as that is lost, by the marks in the files and, in Docker's daemon.json, by mirror,
// which is sidemirror's address. The error names each file that it could not reach, and why; the
// journal stays for those alone.
func Revert(ctx context.Context, h *Host, mirror string) (Result, error) {
	plan, err := Make(ctx, h, engine.Desired{Mirror: mirror})
	if err != nil {
		return Result{}, err
	}
	return Apply(ctx, h, plan)
}
