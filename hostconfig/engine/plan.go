package engine

import (
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// Kind is how a file is edited.
type Kind string

// The kinds of files. They are also what the journal records.
const (
	HostsTOML  Kind = "hosts.toml"
	DaemonJSON Kind = "daemon.json"
	ConfigTOML Kind = "config.toml"

	RegistriesConf Kind = "registries.conf"
	BuildkitdTOML  Kind = "buildkitd.toml"

	DropIn Kind = "drop-in"
)

// Plan is what one engine asks for. Files with sidemirror's entry that no plan asks for are
// restored.
type Plan struct {
	// State is what Detect found, with what was found out while planning.
	State State

	// Edits are the files that should have sidemirror's entry.
	Edits []Edit

	// Refused are files that should have the entry, but must not be edited.
	Refused []Refusal

	// Skipped are the registries that the engine should reach through sidemirror and does not. A
	// problem or a note of State says why.
	Skipped []string

	// Apart are registries that an edit for all others does not reach, because they have folders of
	// their own.
	Apart []string

	// Unverified are registries that the engine reaches without verifying a certificate, or by plain
	// HTTP, by settings that sidemirror does not adopt.
	Unverified []string

	// Folders have one folder for each registry. A hosts.toml below them that is marked as
	// sidemirror's, and that no plan asks for, is restored even if the journal is lost.
	Folders []string

	// Configs are further files that the engine reads, and that are restored in the same way.
	Configs []Config

	// Retain are kinds of files whose entry stays although no edit asks for it: what a person allowed
	// once is not taken back because the next run was not told again.
	Retain []Kind

	// Guards are pairs of files of which one makes the other safe.
	Guards []Guard

	// Hold is why nothing of the engine should change for now: something about it cannot be read.
	// Its files stay as they are, unless the engine should have no entry at all.
	Hold *problem.Problem

	// Pending is a signal that the running engine needs although no file changes, or nil.
	Pending *Pending

	// Restart allows the engine to be restarted when one of its edits needs it.
	Restart bool

	// Probe is how the engine can be asked whether it reads what is written. It is nil if it is known
	// not to, or if there is nothing to ask.
	Probe *Probe
}

// Refusal is a file that cannot get its entry, and why.
type Refusal struct {
	Path    string
	Problem *problem.Problem
}

// Refuse adds a refusal. The code is for an error that has none.
func (p *Plan) Refuse(path string, err error, code problem.Code) {
	p.Refused = append(p.Refused, Refusal{Path: path, Problem: problem.Coded(err, code)})
}

// Skip says that a registry is not mirrored, and why.
func (p *Plan) Skip(registry string, why problem.Problem) {
	p.Skipped = append(p.Skipped, registry)
	p.State.Problem(why)
}

// Edit is one file that should have an entry.
type Edit struct {
	Path  string
	Why   string // for a person
	Entry Entry

	// Registries are those whose pulls the entry sends to sidemirror. Others says that it sends those
	// of all registries that the plan does not name otherwise.
	Registries []string
	Others     bool

	// Needs is the path of another edit without which this one must not be made.
	Needs string

	// Warning is a side effect of making the edit, or nil.
	Warning *problem.Problem
}

// Entry is what should be in a file.
type Entry interface {
	Kind() Kind

	// Add returns base, which has no entry, with this one. Base is nil if there is no file.
	Add(name string, base []byte) ([]byte, error)

	// Settled reports whether a file has the entry already, whatever else it holds.
	Settled(name string, now []byte) bool

	// Merge returns an entry that is right for both of two edits that lead to one file. It reports
	// false if there is none.
	Merge(other Entry) (Entry, bool)
}

// Pending says that a running engine has not taken a file that is in place: a run may have been
// killed between the write and the signal. It does not apply if the file is going to be written.
type Pending struct {
	Signal  live.Signal
	File    string
	Problem problem.Problem
}

// Config is a file of an engine that may have an entry.
type Config struct {
	Path string
	Kind Kind
}

// Guard says that File must keep its entry as long as Danger has one, or as long as the running engine
// has taken it from there.
type Guard struct {
	File, Danger string
	InForce      bool // the running engine has it in force
}

// Probe is a folder in which an engine should look for files that name mirrors.
type Probe struct {
	Folder string

	// Command returns the command line that pulls an image by a drop-in of registries.conf, for programs
	// that are no daemons. What it writes goes below scratch, an empty folder. If Command is nil, the
	// running engine pulls by a hosts.toml.
	Command func(scratch, reference string) []string

	// AfterRestart says that the engine does not look there before it is restarted.
	AfterRestart bool
}
