package engine

import (
	"strings"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// Mirror says whether an engine's pulls go through sidemirror.
type Mirror string

const (
	// Active means that all wanted files are in place and in force.
	Active Mirror = "active"
	// Partial means that some pulls go through sidemirror and others should but do not.
	Partial Mirror = "partial"
	// Inactive means that no pull goes through sidemirror.
	Inactive Mirror = "inactive"
	// Unknown means that it could not be found out.
	Unknown Mirror = "unknown"
)

// Known is how it is known what an engine has in force.
type Known string

const (
	// KnownByEngine means that the running engine was asked.
	KnownByEngine Known = "engine"
	// KnownByProgram means that the engine's program was asked how it reads its files.
	KnownByProgram Known = "program"
	// KnownByFiles means that its files were read.
	KnownByFiles Known = "files"
)

// State is what was found out about one engine. Its JSON form is part of the command line's.
type State struct {
	Engine  string `json:"engine"`
	Home    string `json:"home,omitempty"` // whose it is, unless it is the distribution's: "k3s"
	Present bool   `json:"present"`
	Running bool   `json:"running"`
	Stopped bool   `json:"stopped"`           // it is known not to run
	Version string `json:"version,omitempty"` // empty if unknown
	Store   string `json:"store,omitempty"`   // of Docker's images: "containerd", or a graph driver

	// Config is the configuration file in force, Hosts the folder in which the engine looks for
	// hosts.toml files. They are empty if there is none.
	Config string `json:"config,omitempty"`
	Hosts  string `json:"hosts,omitempty"`

	// Known is how it is known what the engine has in force.
	Known Known `json:"known_by,omitempty"`

	// Mirror is whether pulls go through sidemirror, Through the kinds of files that make them.
	// Mirror is empty for an engine that should not.
	Mirror  Mirror `json:"mirror,omitempty"`
	Through []Kind `json:"through,omitempty"`

	// HubOnly says that of the wanted registries it can use a mirror for Docker Hub alone.
	HubOnly bool `json:"hub_only"`

	// Files have sidemirror's entry, or should have it.
	Files []File `json:"files,omitempty"`

	// Adopted say how the engine reaches registries, where sidemirror does the same.
	Adopted []Adopted `json:"adopted,omitempty"`

	// Problems keep the engine's pulls from going through sidemirror, or put them at risk. Notes
	// are other things that are worth knowing.
	Problems []*problem.Problem `json:"problems,omitempty"`
	Notes    []*problem.Problem `json:"notes,omitempty"`
}

// Problem adds a problem.
func (s *State) Problem(p problem.Problem) { s.Problems = append(s.Problems, &p) }

// Note adds a note.
func (s *State) Note(p problem.Problem) { s.Notes = append(s.Notes, &p) }

// Title is the engine's name for a person: "containerd of k3s".
func (s *State) Title() string {
	if s.Home != "" {
		return s.Engine + " of " + s.Home
	}
	return s.Engine
}

// OtherRegistries is the hint for an engine that is HubOnly: how to pull from another registry
// through mirror, sidemirror's URL.
func OtherRegistries(mirror string) string {
	return "pull other registries as " + PullPrefix(mirror) + "/ghcr.io/…"
}

// PullPrefix returns what comes before the registry in a reference that names sidemirror itself, whose
// URL is mirror: "localhost:305".
func PullPrefix(mirror string) string {
	host := strings.TrimPrefix(mirror, "http://")
	if port, ok := strings.CutPrefix(host, "127.0.0.1:"); ok {
		return "localhost:" + port
	}
	return host
}

// File is one file that matters to an engine.
type File struct {
	Path  string    `json:"path"`
	State FileState `json:"state"`
}

// FileState is how a file compares with what is wanted of it.
type FileState string

const (
	// InPlace is a file that has sidemirror's entry as wanted.
	InPlace FileState = "in-place"
	// Missing is a file that does not exist and should.
	Missing FileState = "missing"
	// Outdated is a file without the entry, or with another one than wanted.
	Outdated FileState = "outdated"
	// Refused is a file that should have the entry and cannot be changed.
	Refused FileState = "refused"
	// Unwanted is a file that has the entry and should not.
	Unwanted FileState = "unwanted"
)
