// Package process finds the process of a container engine and makes sure that it is the engine.
//
// A name proves nothing: a user can leave a setuid program behind that is called dockerd, has
// effective user id 0 and carries arguments of the user's choice. [Finder.Find] therefore believes
// a process only if the service manager or the engine's own socket vouches for it.
package process

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a running engine that was authenticated.
type Process struct {
	PID     int
	Args    []string // the command line, the program's name first
	Program string   // the executable file; empty if the kernel does not tell
	Unit    string   // the systemd unit that it is part of; empty if there is none
	Started time.Time
}

// Reload makes the engine read its configuration again: through the service manager, which knows how
// the unit wants it, by the function reload, and if that fails by SIGHUP. ExecReload= of units needs a
// kill(1), which small images lack.
func (p Process) Reload(ctx context.Context, reload func(ctx context.Context, unit string) error) error {
	var err error
	if p.Unit != "" {
		if err = reload(ctx, p.Unit); err == nil {
			return nil
		}
	}
	if hupErr := p.Signal(unix.SIGHUP); hupErr != nil {
		return errors.Join(err, hupErr)
	}
	return nil
}

// Manager is the service manager of the host.
type Manager interface {
	// MainPID returns the process id of a unit's main process, 0 if it has none or is being stopped.
	MainPID(ctx context.Context, unit string) (int, error)

	// Active reports whether a unit is active.
	Active(ctx context.Context, unit string) (bool, error)
}

// Finder finds engines on the running host. The zero value knows no service manager.
type Finder struct {
	Manager Manager
}

// Query describes the engine to find.
type Query struct {
	Name   string   // of the program: "dockerd"
	Units  []string // the units that run it, whatever program they start
	Socket string   // the path that it listens at by default

	// SocketUnits are the units by which the service manager listens at Socket in the engine's place.
	// While one is active, a connection would start an engine that is stopped, and would be the
	// manager's and not the engine's.
	SocketUnits []string

	// Accept reports whether the engine with these arguments is meant. Nil accepts all.
	Accept func(p Process) bool
}

// Find returns the engine's process, or nil if none is running that can be authenticated.
func (f Finder) Find(ctx context.Context, q Query) *Process {
	for _, c := range candidates(q.Name) {
		if p := f.authenticate(ctx, q, c); p != nil && (q.Accept == nil || q.Accept(*p)) {
			return p
		}
	}
	return nil
}

// authenticate returns c as a Process if it is q's engine. The process file descriptor that it
// opens first makes sure that all that was read belongs to one and the same process.
func (f Finder) authenticate(ctx context.Context, q Query, c candidate) *Process {
	fd, err := unix.PidfdOpen(c.pid, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	again, ok := readCandidate(c.pid)
	if !ok || again.name != q.Name || !again.isRoot() {
		return nil
	}
	c = again
	exe := inspectExecutable(c.pid)
	if exe.known && !exe.safe {
		return nil
	}
	if !f.isMainProcess(ctx, q, c) && (f.listens(ctx, q) || !ownsSocket(ctx, q.Socket, c, exe.known)) {
		return nil
	}
	if !alive(fd) {
		return nil
	}
	return &Process{PID: c.pid, Args: c.args, Program: exe.path, Unit: c.unit, Started: started(c.pid)}
}

// isMainProcess reports whether the service manager started c as the main process of one of q's
// units.
func (f Finder) isMainProcess(ctx context.Context, q Query, c candidate) bool {
	if f.Manager == nil {
		return false
	}
	return slices.ContainsFunc(q.Units, func(unit string) bool {
		pid, err := f.Manager.MainPID(ctx, unit)
		return err == nil && pid == c.pid
	})
}

// listens reports whether the service manager listens at q's socket itself.
func (f Finder) listens(ctx context.Context, q Query) bool {
	return f.Manager != nil && slices.ContainsFunc(q.SocketUnits, func(unit string) bool {
		active, err := f.Manager.Active(ctx, unit)
		return err == nil && active
	})
}

// Users returns the user ids, without duplicates and 0, whose processes bear the name. Any user
// can make this list say anything: it serves to inform and never to decide what root does.
func Users(name string) []int {
	var list []int
	for _, c := range candidates(name) {
		if uid := c.uids[1]; uid != 0 && !slices.Contains(list, uid) {
			list = append(list, uid)
		}
	}
	return list
}

// Absent reports whether no process bears the name. Any user can make one that does.
func Absent(name string) bool { return len(candidates(name)) == 0 }

// Signal sends a signal to p. It fails if p has ended, even if another process has its id now.
func (p Process) Signal(signal unix.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !started(p.PID).Equal(p.Started) {
		return os.ErrProcessDone
	}
	return unix.PidfdSendSignal(fd, signal, nil, 0)
}

// alive reports whether the process behind a process file descriptor is running.
func alive(fd int) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n == 0
}

func procPath(pid int, name string) string {
	return "/proc/" + strconv.Itoa(pid) + "/" + name
}
