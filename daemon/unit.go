package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// How long systemd may take to do what it was asked: dockerd reads its configuration
// in no time, containerd finds its containers again.
const (
	reloadLimit  = 30 * time.Second
	restartLimit = 90 * time.Second
	startLimit   = 10 * time.Second
	askLimit     = 2 * time.Second
)

// Our own units, as packages name them.
const (
	socketUnit = "sidemirror.socket"
	proxyUnit  = "sidemirror.service"
)

// Units is the running host's systemd, for hostconfig.Host. It is asked over its own
// socket, which root reaches without a bus, else over the system's bus.
type Units struct {
	dial func(context.Context) (*dbus.Conn, error)
}

// Reload has a unit read its configuration again, and waits until it has been told to.
func (u Units) Reload(ctx context.Context, unit string) error {
	return u.job(ctx, reloadLimit, "reload", unit, (*dbus.Conn).ReloadUnitContext)
}

// Restart restarts a unit and waits until it is up.
func (u Units) Restart(ctx context.Context, unit string) error {
	return u.job(ctx, restartLimit, "restart", unit, (*dbus.Conn).RestartUnitContext)
}

// reopen starts our sockets if systemd has closed them, which it does where the proxy
// failed again and again, and reports whether it had. Those that an administrator
// has stopped have not failed, and stay so.
//
// It starts the proxy, which takes its sockets along: a start that the next connection
// makes could still run into the limit that closed them.
func (u Units) reopen(ctx context.Context) (reopened bool, err error) {
	state, err := u.property(ctx, socketUnit, "Unit", "ActiveState")
	if err != nil || state != "failed" {
		return false, err
	}
	return true, u.job(ctx, startLimit, "start", proxyUnit, (*dbus.Conn).StartUnitContext)
}

// ProxySays is the line that the proxy has given systemd of itself: what it serves and,
// behind semicolons, what is amiss. It is empty where systemd does not run it.
func (u Units) ProxySays(ctx context.Context) (string, error) {
	return u.property(ctx, proxyUnit, "Service", "StatusText")
}

// property is one of a unit's that is text.
func (u Units) property(ctx context.Context, unit, kind, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	c, err := u.connect(ctx)
	if err != nil {
		return "", fmt.Errorf("asking systemd about %s: %w", unit, err)
	}
	defer c.Close()
	p, err := c.GetUnitTypePropertyContext(ctx, unit, kind, name)
	if err != nil {
		return "", fmt.Errorf("asking systemd about %s: %w", unit, err)
	}
	text, _ := p.Value.Value().(string)
	return text, nil
}

func (u Units) connect(ctx context.Context) (*dbus.Conn, error) {
	if u.dial != nil {
		return u.dial(ctx)
	}
	return dialSystemd(ctx)
}

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
		return fmt.Errorf("systemd's job to %s %s is not done: %w", verb, unit, ctx.Err())
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
