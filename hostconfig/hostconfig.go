// Package hostconfig writes the configuration of a host's container engines so
// that they ask sidemirror first, and takes it back.
//
// [Make] looks at the host and says what would have to change, [Apply] changes
// it, [Revert] gives everything back. Files are edited by splice: all that is
// not ours keeps its bytes. What was there before is in a journal on the host
// before the first edit, so that a run that is killed at any instant is finished
// or undone by the next one.
package hostconfig

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/journal"
)

// Docker and Containerd are the engines, as [Desired] and [State] name them.
const (
	Docker     = "docker"
	Containerd = "containerd"
)

// Host is the host to look at. The zero value is not one: Root has to be set. It is
// for one goroutine at a time.
type Host struct {
	// Root is "/" or the folder that a host's tree is under. Nothing outside it is
	// read or written, symbolic links notwithstanding; absolute ones start at Root.
	Root string

	// Present names engines that count as installed even where neither their
	// configuration folder nor their binary is found.
	Present []string

	// Versions gives an engine's version ("28.5.2") where it is known. Others are asked
	// of the binary (Root "/") or looked up in Debian's package database.
	Versions map[string]string

	// Units is the service manager of this host. If nil, nobody is told of anything.
	Units Units

	step     func(op, path string) error
	patience time.Duration // with an engine that is asked; 0 for the usual one
	live     bool          // a tree that is to be looked at as if it were the running host's
	signaler signaler
	asked    map[string]string // versions, by the program that said them
}

// running reports whether this is the host that we run on, and not a tree of another's.
func (h *Host) running() bool { return h.Root == "/" || h.live }

// Desired is what the engines' configuration shall say. An engine that is
// neither in Engines nor in Leave is to have nothing of ours: the zero value
// means that all is to be removed.
type Desired struct {
	// Mirror is our own address: "http://127.0.0.1:305".
	Mirror string

	// Registries are names as in references: "docker.io", "registry.corp.example:5000".
	Registries []string

	// Engines are those to configure, Leave those not even to look at.
	Engines, Leave []string

	// RestartContainerd allows config_path to be set in containerd's own configuration,
	// and containerd to be restarted for it.
	RestartContainerd bool
}

// State is what was found out about one engine.
type State struct {
	Engine  string `json:"engine"`
	Home    string `json:"home,omitempty"` // whose it is, where it is not the distribution's: "k3s"
	Present bool   `json:"present"`
	Running bool   `json:"running"`
	Version string `json:"version,omitempty"` // empty where unknown
	Store   string `json:"store,omitempty"`   // of Docker's images: "containerd", or a graph driver's name

	// Config is the configuration file in force, Hosts the folder in which the engine
	// looks for hosts.toml files. Empty where there is none.
	Config string `json:"config,omitempty"`
	Hosts  string `json:"hosts,omitempty"`

	Mirror string   `json:"mirror,omitempty"` // by what it reaches us, or that it does not, in words
	Files  []string `json:"files,omitempty"`  // that have our part, or are to have it
	Notes  []string `json:"notes,omitempty"`  // what is not done or inactive, why, and the mend
}

func (s *State) note(text string) { s.Notes = append(s.Notes, text) }

// Change is one file that has to change.
type Change struct {
	Engine string
	Path   string // as the host names it, whatever Root is

	// Before and After are the whole file; nil means that there is none.
	Before, After []byte

	Why string

	kind    kind
	url     string
	base    []byte // Before without our part
	interim []byte // what dockerd has to be shown on the way; see interimDaemon
	needs   string // the path of a change without which this one must not be made
	undo    bool
	changed time.Time // when Before came about, by the kernel; zero where there is none
}

// edit is what the journal records of a change before it is made.
func (c *Change) edit() journal.Edit {
	return journal.Edit{Engine: c.Engine, Kind: string(c.kind), Path: c.Path, URL: c.url, Base: c.base, Contents: [][]byte{c.After, c.interim}}
}

// Plan is what has to be done to a host. It is settled when there are no Changes and
// no Signals.
type Plan struct {
	// Mirror is our own address, as [Desired] has it.
	Mirror string

	Engines []State
	Changes []Change

	// Refused are files that should change and cannot, each with the reason and the mend.
	Refused []error

	// Watch are the paths whose change may change the plan, whether they exist or not. One
	// with a slash at its end stands for all that is in that folder.
	Watch []string

	named   []string // engines that are there because somebody says so
	asks    []ask
	reload  bool // dockerd has not taken a file that is right
	restart bool // containerd has to be restarted
	pending bool // restart is for a change made before this plan
	told    bool // there is somebody to tell

	dockerRuns bool
}

// Signals are the words for what the engines will be told: "reload docker",
// "restart containerd". Under a root that is not "/" nobody is told.
func (p Plan) Signals() []string {
	var list []string
	if !p.told {
		return nil
	}
	if p.reload || p.dockerRuns && slices.ContainsFunc(p.Changes, func(c Change) bool { return c.kind == daemonFile }) {
		list = append(list, "reload docker")
	}
	if p.restart {
		list = append(list, "restart containerd")
	}
	return list
}

// Result is what was done. A file is in at most one of the lists.
type Result struct {
	Written []string `json:"written"` // with our part in them now
	Given   []string `json:"given"`   // without it again
	Told    []string `json:"told"`    // engines that took their new configuration: "docker reloaded"

	// Asked are the engines that were asked to pull a probe image, and came to us for it.
	// Warnings are of those that did not, and why.
	Asked    []string `json:"asked"`
	Warnings []string `json:"warnings"`
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

// Make compares the host with want. It only reads. The error is for what keeps
// it from looking at all; a file that is refused is in the plan.
func Make(ctx context.Context, h *Host, want Desired) (Plan, error) {
	t, err := h.open()
	if err != nil {
		return Plan{}, err
	}
	defer t.Close()
	j, err := journal.Load(t)
	if err != nil {
		return Plan{}, err
	}
	p := &planner{host: h, tree: t, journal: j, want: want}
	p.look(ctx)
	for _, e := range []engine{p.newDocker(), p.newContainerd()} {
		if slices.Contains(want.Leave, e.name()) {
			continue
		}
		if slices.Contains(want.Engines, e.name()) {
			p.out.Engines = append(p.out.Engines, e.plan(ctx)...)
			continue
		}
		e.undo()
		p.out.Engines = append(p.out.Engines, State{Engine: e.name(), Present: p.present(e), Running: e.runs()})
	}
	p.out.Watch = slices.DeleteFunc(t.Seen(), func(name string) bool { return strings.HasPrefix(name, journal.Folder) })
	return p.out, nil
}

// Revert takes everything of ours out again, by the journal, and where the
// journal is lost by our marks and, in Docker's daemon.json, by mirror, which is our
// own address.
func Revert(ctx context.Context, h *Host, mirror string) (Result, error) {
	plan, err := Make(ctx, h, Desired{Mirror: mirror})
	if err != nil {
		return Result{}, err
	}
	return Apply(ctx, h, plan)
}
