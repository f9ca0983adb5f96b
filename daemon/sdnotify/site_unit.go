package sdnotify

import (
	"context"
	"errors"
	"fmt"

	"github.com/coreos/go-systemd/v22/dbus"
)

// ErrNoSiteUnit means that systemd does not have the unit of the site's sockets.
var ErrNoSiteUnit = errors.New("there is no unit " + SiteUnit)

// EnableSite enables the sockets of the site, and opens them by a restart of the proxy, which is how a
// service that runs gets another socket.
func (u Units) EnableSite(ctx context.Context) error {
	state, err := u.State(ctx, SiteUnit)
	if err != nil {
		return err
	}
	if !state.Loaded {
		return ErrNoSiteUnit
	}
	if err := u.enable(ctx, SiteUnit); err != nil {
		return err
	}
	if err := u.job(ctx, restartLimit, "restart", ProxyUnit, (*dbus.Conn).RestartUnitContext); err != nil {
		return err
	}
	if up, err := u.Active(ctx, SiteUnit); err != nil || up {
		return err
	}
	return fmt.Errorf("systemd could not open the sockets of %s", SiteUnit)
}

// DisableSite closes the sockets of the site and disables them. It reports whether there was something
// to do.
func (u Units) DisableSite(ctx context.Context) (changed bool, err error) {
	state, err := u.State(ctx, SiteUnit)
	if err != nil || !state.Loaded || state.File == "disabled" && !state.Up() {
		return false, err
	}
	if err := u.disable(ctx, SiteUnit); err != nil {
		return false, err
	}
	if err := u.job(ctx, stopLimit, "stop", SiteUnit, (*dbus.Conn).StopUnitContext); err != nil {
		return true, err
	}
	return true, u.job(ctx, restartLimit, "restart", ProxyUnit, (*dbus.Conn).TryRestartUnitContext)
}

// enable is "systemctl enable".
func (u Units) enable(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	c, err := u.connect(ctx)
	if err != nil {
		return fmt.Errorf("asking systemd to enable %s: %w", unit, err)
	}
	defer c.Close()
	if _, _, err := c.EnableUnitFilesContext(ctx, []string{unit}, false, true); err != nil {
		return fmt.Errorf("asking systemd to enable %s: %w", unit, err)
	}
	if err := c.ReloadContext(ctx); err != nil {
		return fmt.Errorf("asking systemd to read its units: %w", err)
	}
	return nil
}
