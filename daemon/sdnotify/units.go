package sdnotify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// Limits of the time that systemd may take for a job. dockerd reads its configuration at
// once; containerd finds its containers again when it starts.
const (
	reloadLimit  = 30 * time.Second
	restartLimit = 90 * time.Second
	startLimit   = 10 * time.Second
	stopLimit    = 40 * time.Second // TimeoutStopSec= and some more
	queryLimit   = 2 * time.Second
)

// sidemirror's own units, as its packages name them.
const (
	SocketUnit   = "sidemirror.socket"           // holds the proxy's sockets open
	SiteUnit     = "sidemirror-site.socket"      // holds that of the site open
	SiteHTTPUnit = "sidemirror-site-http.socket" // holds that of the site's plain HTTP open
	ProxyUnit    = "sidemirror.service"          // runs "sidemirror serve"
	WatcherUnit  = "sidemirror-hosts.service"    // runs "sidemirror watch"
)

// Units is the systemd of the running host, reached over its own socket, which root can use
// without a bus, or else over the system bus. The zero value is ready to use.
type Units struct {
	dial func(context.Context) (*dbus.Conn, error)
}

// Reload makes a unit read its configuration again, and waits until systemd has passed the
// request on.
func (u Units) Reload(ctx context.Context, unit string) error {
	return u.job(ctx, reloadLimit, "reload", unit, (*dbus.Conn).ReloadUnitContext)
}

// Restart restarts a unit and waits until it is up.
func (u Units) Restart(ctx context.Context, unit string) error {
	return u.job(ctx, restartLimit, "restart", unit, (*dbus.Conn).RestartUnitContext)
}

// Outdated reports whether files of a unit have changed since systemd read them.
func (u Units) Outdated(ctx context.Context, unit string) (bool, error) {
	value, err := u.value(ctx, unit, "Unit", "NeedDaemonReload")
	outdated, _ := value.(bool)
	return outdated, err
}

// Reconfigure makes systemd read the files of all units again, and restarts the unit if it runs.
func (u Units) Reconfigure(ctx context.Context, unit string) error {
	err := func() error {
		ctx, cancel := context.WithTimeout(ctx, reloadLimit)
		defer cancel()
		c, err := u.connect(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		return c.ReloadContext(ctx)
	}()
	if err != nil {
		return fmt.Errorf("asking systemd to read its units again: %w", err)
	}
	return u.job(ctx, restartLimit, "restart", unit, (*dbus.Conn).TryRestartUnitContext)
}

// ReopenSockets opens sidemirror's sockets again if systemd closed them because the proxy
// failed again and again, and reports whether it did. Sockets that an administrator stopped
// have not failed, and stay closed.
//
// It starts the proxy, which opens its sockets too, and for that lifts the limit of starts that
// closed them: what the limit has counted was before the cause was repaired.
func (u Units) ReopenSockets(ctx context.Context) (reopened bool, err error) {
	state, err := u.property(ctx, SocketUnit, "Unit", "ActiveState")
	if err != nil || state != "failed" {
		return false, err
	}
	return true, u.job(ctx, startLimit, "start", ProxyUnit, startAnew)
}

// startAnew starts a unit whatever the limit of its starts has counted.
func startAnew(c *dbus.Conn, ctx context.Context, unit, mode string, done chan<- string) (int, error) {
	_ = c.ResetFailedUnitContext(ctx, unit) // that there is nothing to reset is no failure
	return c.StartUnitContext(ctx, unit, mode, done)
}

// StartProxy starts the proxy if it does not run although its sockets are open, and reports whether it
// did. A proxy that has failed, or whose sockets an administrator stopped, stays as it is.
func (u Units) StartProxy(ctx context.Context) (started bool, err error) {
	open, err := u.Active(ctx, SocketUnit)
	if err != nil || !open {
		return false, err
	}
	state, err := u.property(ctx, ProxyUnit, "Unit", "ActiveState")
	if err != nil || state != "inactive" {
		return false, err
	}
	return true, u.job(ctx, startLimit, "start", ProxyUnit, (*dbus.Conn).StartUnitContext)
}

// ProxyStatus returns the status line of the proxy's unit: what it serves and, after
// semicolons, its problems. It is empty if systemd does not run the proxy.
func (u Units) ProxyStatus(ctx context.Context) (string, error) {
	return u.property(ctx, ProxyUnit, "Service", "StatusText")
}

// MainPID returns the process id of the main process of a service's unit. It is 0 if the unit does
// not run, does not exist, or is being stopped: a connection to the socket of a service that stops
// waits until it has ended, and then makes systemd start it again.
func (u Units) MainPID(ctx context.Context, unit string) (int, error) {
	if state, err := u.property(ctx, unit, "Unit", "ActiveState"); err != nil || state == "deactivating" {
		return 0, err
	}
	value, err := u.value(ctx, unit, "Service", "MainPID")
	pid, ok := value.(uint32)
	if err == nil && !ok {
		err = fmt.Errorf("asking systemd about %s: its MainPID is %v", unit, value)
	}
	return int(pid), err
}

// RunsBefore reports whether a unit runs a command with arg as an argument before its main process.
func (u Units) RunsBefore(ctx context.Context, unit, arg string) (bool, error) {
	value, err := u.value(ctx, unit, "Service", "ExecStartPre")
	if err != nil {
		return false, err
	}
	commands, _ := value.([][]any) // a(sasbttttuii): the path, the arguments, and how it ended
	return slices.ContainsFunc(commands, func(c []any) bool {
		if len(c) < 2 {
			return false
		}
		args, _ := c[1].([]string)
		return slices.Contains(args, arg)
	}), nil
}

// Active reports whether a unit is active. A unit that does not exist is not.
func (u Units) Active(ctx context.Context, unit string) (bool, error) {
	state, err := u.property(ctx, unit, "Unit", "ActiveState")
	return state == "active", err
}

// property returns a property of a unit that is text.
func (u Units) property(ctx context.Context, unit, kind, name string) (string, error) {
	value, err := u.value(ctx, unit, kind, name)
	text, _ := value.(string)
	return text, err
}

// value returns a property of a unit.
func (u Units) value(ctx context.Context, unit, kind, name string) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	c, err := u.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking systemd about %s: %w", unit, err)
	}
	defer c.Close()
	p, err := c.GetUnitTypePropertyContext(ctx, unit, kind, name)
	if err != nil {
		return nil, fmt.Errorf("asking systemd about %s: %w", unit, err)
	}
	return p.Value.Value(), nil
}

func (u Units) connect(ctx context.Context) (*dbus.Conn, error) {
	if u.dial != nil {
		return u.dial(ctx)
	}
	return dialSystemd(ctx)
}

// enqueue is a method of dbus.Conn that asks systemd for a job.
type enqueue func(c *dbus.Conn, ctx context.Context, unit, mode string, done chan<- string) (int, error)

func (u Units) job(ctx context.Context, limit time.Duration, verb, unit string, ask enqueue) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := u.connect(ctx)
	if err != nil {
		return fmt.Errorf("asking systemd to %s %s: %w", verb, unit, err)
	}
	defer c.Close()
	done := make(chan string, 1)
	if _, err := ask(c, ctx, unit, "replace", done); err != nil {
		return fmt.Errorf("asking systemd to %s %s: %w", verb, unit, err)
	}
	select {
	case result := <-done: // org.freedesktop.systemd1(5), JobRemoved
		if result != "done" {
			return fmt.Errorf("systemd's job to %s %s ended with %q", verb, unit, result)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("systemd's job to %s %s did not end in time: %w", verb, unit, ctx.Err())
	}
}

func dialSystemd(ctx context.Context) (*dbus.Conn, error) {
	c, err := dbus.NewSystemdConnectionContext(ctx)
	if err == nil {
		return c, nil
	}
	c, busErr := dbus.NewSystemConnectionContext(ctx)
	if busErr != nil {
		return nil, errors.Join(err, busErr)
	}
	return c, nil
}
