// Package live is what runs on a host: the engines' daemons, what can be asked of them, and
// their signals.
package live

import (
	"context"
	"net/netip"
	"time"

	"github.com/sidemirror/sidemirror/internal/portowner"
)

// Host is what runs on the host, and what can be asked of it.
type Host interface {
	// Daemon returns the running daemon of an engine, authenticated, or nil. name is that of an engine or,
	// for the containerd of a distribution of Kubernetes, that of the distribution.
	Daemon(ctx context.Context, name string) Daemon

	// Stopped reports whether an engine of which Daemon returns nothing is known not to run.
	Stopped(ctx context.Context, name string) bool

	// Users returns the users other than root who seem to run an engine of their own.
	Users(name string) []int

	// Output runs one of the host's programs and returns what it prints. It is empty if the
	// program is not one that root can trust, fails, or says too much. basis names what the output
	// depends on, besides program and arguments: for the same basis it may be remembered.
	Output(ctx context.Context, basis, program string, args ...string) string

	// Owner returns who listens at an address; it fails if that cannot be found out.
	Owner(addr netip.AddrPort) (portowner.Owner, error)

	// FirstUnprivilegedPort returns the lowest port that every user can listen at.
	FirstUnprivilegedPort() uint16

	// Lookup resolves a host name.
	Lookup(ctx context.Context, name string) ([]netip.Addr, error)
}

// Daemon is an engine's running daemon.
type Daemon interface {
	// Args is its command line, the program first, and Started the time at which it was started.
	Args() []string
	Started() time.Time

	// Info returns what the daemon has in force.
	Info(ctx context.Context) (Info, error)

	// Signal makes it reload or restart, and waits until it has. A reload that is
	// done does not mean that it accepted its configuration.
	Signal(ctx context.Context, verb Verb) error
}

// Images are the images of a daemon that pulls such for its users.
type Images interface {
	// Pull pulls an image, and returns why it could not.
	Pull(ctx context.Context, reference string) error

	// Remove removes an image that was pulled.
	Remove(ctx context.Context, reference string) error
}

// Info is what a daemon says about itself. What it does not say is empty.
type Info struct {
	Version string
	Store   string   // Docker: "containerd", or the name of a graph driver
	Mirrors []string // Docker: registry-mirrors

	// ConfigPath is containerd's registry.config_path, if KnowsConfigPath.
	ConfigPath      string
	KnowsConfigPath bool
}

// Verb is what a signal makes an engine do.
type Verb string

// The verbs. containerd dies of SIGHUP: it is only ever restarted.
const (
	Reload  Verb = "reload"
	Restart Verb = "restart"
)

// Signal is one for a running engine.
type Signal struct {
	Engine string `json:"engine"`
	Verb   Verb   `json:"verb"`
}

func (s Signal) String() string { return string(s.Verb) + " " + s.Engine }

// Units is the service manager that engines run under.
type Units interface {
	// Reload and Restart do that to a unit, named with its suffix ("docker.service"), and return
	// when the job is done.
	Reload(ctx context.Context, unit string) error
	Restart(ctx context.Context, unit string) error

	// MainPID returns the process id of a unit's main process, 0 if it has none or is being stopped.
	MainPID(ctx context.Context, unit string) (int, error)

	// Active reports whether a unit is active.
	Active(ctx context.Context, unit string) (bool, error)

	// Outdated reports whether files of a unit have changed since the service manager read them.
	Outdated(ctx context.Context, unit string) (bool, error)

	// Reconfigure makes the service manager read the files of all units again, and restarts the unit
	// if it runs.
	Reconfigure(ctx context.Context, unit string) error
}
