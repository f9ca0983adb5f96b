package sdnotify

import (
	"context"
	"errors"
	"fmt"

	"github.com/coreos/go-systemd/v22/dbus"
)

// ErrNoSiteUnit means that systemd does not have the units of the site's sockets.
var ErrNoSiteUnit = errors.New("there is no unit " + SiteUnit)

// EnableSite enables the sockets of the site, and opens them by a restart of the proxy, which is how a
// service that runs gets another socket. plain reports whether that of plain HTTP is open. If another
// program has its port, its unit is disabled again: at the next boot it could be faster than that
// program.
func (u Units) EnableSite(ctx context.Context) (plain bool, err error) {
	state, err := u.State(ctx, SiteUnit)
	if err != nil {
		return false, err
	}
	if !state.Loaded {
		return false, ErrNoSiteUnit
	}
	if err := u.enable(ctx, SiteUnit); err != nil {
		return false, err
	}
	// An administrator who wants no plain HTTP masks its unit.
	withPlain, err := u.State(ctx, SiteHTTPUnit)
	if err != nil {
		return false, err
	}
	if withPlain.Loaded && withPlain.File != "masked" {
		if err := u.enable(ctx, SiteHTTPUnit); err != nil {
			return false, err
		}
	}
	if err := u.job(ctx, restartLimit, "restart", ProxyUnit, (*dbus.Conn).RestartUnitContext); err != nil {
		return false, err
	}
	if up, err := u.Active(ctx, SiteUnit); err != nil {
		return false, err
	} else if !up {
		return false, fmt.Errorf("systemd could not open the socket of %s", SiteUnit)
	}
	if plain, err = u.Active(ctx, SiteHTTPUnit); err != nil || plain || !withPlain.Loaded || withPlain.File == "masked" {
		return plain, err
	}
	return false, errors.Join(u.disable(ctx, SiteHTTPUnit), u.resetFailed(ctx, SiteHTTPUnit))
}

// DisableSite closes the sockets of the site and disables them. It reports whether there was something
// to do.
func (u Units) DisableSite(ctx context.Context) (changed bool, err error) {
	for _, unit := range []string{SiteHTTPUnit, SiteUnit} {
		state, err := u.State(ctx, unit)
		if err != nil {
			return changed, err
		}
		if !state.Loaded || !state.StartsAtBoot() && !state.Up() && state.Active != "failed" {
			continue
		}
		if err := u.disable(ctx, unit); err != nil {
			return changed, err
		}
		changed = true
		if err := u.job(ctx, stopLimit, "stop", unit, (*dbus.Conn).StopUnitContext); err != nil {
			return changed, err
		}
		if err := u.resetFailed(ctx, unit); err != nil {
			return changed, err
		}
	}
	if !changed {
		return false, nil
	}
	return true, u.job(ctx, restartLimit, "restart", ProxyUnit, (*dbus.Conn).TryRestartUnitContext)
}

// resetFailed makes systemd forget that a unit has failed. One that has not stays as it is.
func (u Units) resetFailed(ctx context.Context, unit string) error {
	state, err := u.property(ctx, unit, "Unit", "ActiveState")
	if err != nil || state != "failed" {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	c, err := u.connect(ctx)
	if err != nil {
		return fmt.Errorf("asking systemd about %s: %w", unit, err)
	}
	defer c.Close()
	if err := c.ResetFailedUnitContext(ctx, unit); err != nil {
		return fmt.Errorf("asking systemd to forget the failure of %s: %w", unit, err)
	}
	return nil
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
