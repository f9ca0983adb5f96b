package sdnotify

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
)

// UnitState is what systemd knows of a unit (org.freedesktop.systemd1(5)).
type UnitState struct {
	Loaded bool   // there is such a unit
	Active string // "active", "inactive", "failed", "activating", …
	File   string // "enabled", "disabled", "indirect", "masked", …; empty if unknown

	Restarting bool // its process ended, and systemd is about to start it again
}

// StartsAtBoot reports whether a boot starts the unit, as far as the unit's own file tells.
func (s UnitState) StartsAtBoot() bool { return s.File != "disabled" && s.File != "masked" }

// Up reports whether the unit runs, or is about to.
func (s UnitState) Up() bool {
	return slices.Contains([]string{"active", "activating", "reloading", "refreshing"}, s.Active)
}

// State returns the state of a unit.
func (u Units) State(ctx context.Context, unit string) (UnitState, error) {
	load, err := u.property(ctx, unit, "Unit", "LoadState")
	if err != nil {
		return UnitState{}, err
	}
	active, err := u.property(ctx, unit, "Unit", "ActiveState")
	if err != nil {
		return UnitState{}, err
	}
	sub, err := u.property(ctx, unit, "Unit", "SubState")
	if err != nil {
		return UnitState{}, err
	}
	file, err := u.property(ctx, unit, "Unit", "UnitFileState")
	return UnitState{
		Loaded: load != "" && load != "not-found", Active: active, File: file, Restarting: strings.HasPrefix(sub, "auto-restart"),
	}, err
}

// SocketAddresses returns the addresses at which systemd opens the proxy's sockets: now, or whenever
// it starts the socket unit. It returns none if the administrator has stopped and disabled that unit,
// or if there is none: then "sidemirror serve" opens its own sockets.
func (u Units) SocketAddresses(ctx context.Context) ([]netip.AddrPort, error) {
	state, err := u.State(ctx, SocketUnit)
	if err != nil || !state.Loaded || state.Active == "inactive" && !strings.HasPrefix(state.File, "enabled") {
		return nil, err
	}
	value, err := u.value(ctx, SocketUnit, "Socket", "Listen")
	if err != nil {
		return nil, err
	}
	var addrs []netip.AddrPort
	sockets, _ := value.([][]any) // a(ss): "Stream" and the address
	for _, s := range sockets {
		if len(s) < 2 {
			continue
		}
		text, _ := s[1].(string)
		if addr, err := netip.ParseAddrPort(text); err == nil {
			addrs = append(addrs, addr)
		}
	}
	return addrs, nil
}

// StopWatcher stops the watcher and keeps it from starting at boot. It reports whether it did
// either.
func (u Units) StopWatcher(ctx context.Context) (changed bool, err error) {
	state, err := u.State(ctx, WatcherUnit)
	if err != nil || !state.Loaded {
		return false, err
	}
	if strings.HasPrefix(state.File, "enabled") {
		if err := u.disable(ctx, WatcherUnit); err != nil {
			return false, err
		}
		changed = true
	}
	if !state.Up() {
		return changed, nil
	}
	return true, u.job(ctx, stopLimit, "stop", WatcherUnit, (*dbus.Conn).StopUnitContext)
}

// disable is "systemctl disable".
func (u Units) disable(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	c, err := u.connect(ctx)
	if err != nil {
		return fmt.Errorf("asking systemd to disable %s: %w", unit, err)
	}
	defer c.Close()
	for _, runtime := range []bool{false, true} {
		if _, err := c.DisableUnitFilesContext(ctx, []string{unit}, runtime); err != nil {
			return fmt.Errorf("asking systemd to disable %s: %w", unit, err)
		}
	}
	if err := c.ReloadContext(ctx); err != nil {
		return fmt.Errorf("asking systemd to read its units: %w", err)
	}
	return nil
}
