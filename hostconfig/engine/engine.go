// Package engine holds the words that container engines have in common: what is wanted of them,
// what was found, what a plan asks for, and the daemon that runs.
package engine

import (
	"context"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/journal"
	"github.com/sidemirror/sidemirror/hostconfig/live"
)

// The engines, as [Desired] and [State] name them. Podman stands for buildah and skopeo too, which
// read the same files.
const (
	Docker     = "docker"
	Containerd = "containerd"
	Podman     = "podman"
	CRIO       = "crio"
	BuildKit   = "buildkit"

	// Sidemirror is not an engine: it stands for the drop-in of sidemirror's own service.
	Sidemirror = "sidemirror"
)

// Engine is one container engine on a host. Implementations only read.
type Engine interface {
	// Name is one of the names above. Several engines of a host can bear the same name, each with a
	// [State.Home] of its own.
	Name() string

	// Detect finds out what is there and what is in force. It reports false if the engine is none
	// of this host's.
	Detect(ctx context.Context) (State, bool)

	// Plan returns the files that the engine needs for want. It asks for nothing if want does not
	// name the engine. State is what Detect returned.
	Plan(ctx context.Context, s State, want Desired) Plan
}

// Desired is what the engines' configuration should say. An engine that is neither in Engines nor
// in Leave should have no entry of sidemirror: the zero value means that all are removed.
type Desired struct {
	// Mirror is sidemirror's address: "http://127.0.0.1:305".
	Mirror string

	// Registries are names as in references: "docker.io", "registry.corp.example:5000".
	Registries []string

	// Any says that registries that are not named go through sidemirror too, where the engine has a
	// setting for that.
	Any bool

	// Explicit are the registries of which sidemirror's configuration says how they are reached. Others
	// are reached as the engines reach them: see [Adopted].
	Explicit []string

	// CopyClientKeys allows copies of client keys that only root can read.
	CopyClientKeys bool

	// Engines are those to configure, Leave those not to look at.
	Engines, Leave []string

	// RestartContainerd allows config_path to be set in containerd's own configuration, and
	// containerd to be restarted for it.
	RestartContainerd bool

	// RestartBuildKit allows buildkitd to be restarted when its configuration is written: it reads
	// that at its start only, and builds that run are lost.
	RestartBuildKit bool
	// Service makes the drop-in of sidemirror's own service part of the plan. Without it, the drop-in is
	// removed.
	Service bool

	// Helpers says that a credential helper or a plugin is configured, which may need the cloud's
	// metadata server. CredentialFiles are files that may name helpers too.
	Helpers         bool
	CredentialFiles []string

	// GuestPort says that sidemirror's service must listen on a port below 1024 of bridges.
	GuestPort bool

	// AllowUnprivilegedPort allows a Mirror whose port every user can listen at.
	AllowUnprivilegedPort bool
}

// Host is where an engine's package looks.
type Host struct {
	Tree    *hostfs.Host
	Journal *journal.Journal

	// Running is what runs on the host; nil for a tree, in which nothing does.
	Running live.Host

	// Named are engines that count as installed although neither their program nor their
	// configuration is found.
	Named []string

	// Versions are the versions of engines that are known from elsewhere, by name.
	Versions map[string]string
}
