package proxycheck

import (
	"context"
	"fmt"

	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// Systemd is what Check asks about sidemirror's units. [sdnotify.Units] is one.
type Systemd interface {
	// State returns the state of a unit.
	State(ctx context.Context, unit string) (sdnotify.UnitState, error)

	// ProxyStatus returns the proxy's own status line, which has its problems after semicolons.
	ProxyStatus(ctx context.Context) (string, error)
}

// Unit is the state of one of sidemirror's units.
type Unit struct {
	Name   string `json:"name"`
	Active string `json:"active"` // as systemctl prints it: "active", "inactive", "failed"
	File   string `json:"file"`   // "enabled", "disabled", "indirect", "masked"
}

// units are the units and what is not done if one does not run. The proxy has no such text: its
// socket starts it.
var units = []struct{ name, without string }{
	{sdnotify.SocketUnit, "engines cannot reach sidemirror"},
	{sdnotify.ProxyUnit, ""},
	{sdnotify.WatcherUnit, "the engines' configuration is not maintained"},
}

// examineUnits returns the state of the units, and what is wrong with each, by name. Both are empty if
// systemd does not run sidemirror here.
func examineUnits(ctx context.Context, systemd Systemd) ([]Unit, map[string]*problem.Problem) {
	var list []Unit
	wrong := make(map[string]*problem.Problem)
	for _, u := range units {
		state, err := systemd.State(ctx, u.name)
		if err != nil {
			return nil, nil
		}
		if !state.Loaded {
			continue
		}
		list = append(list, Unit{u.name, state.Active, state.File})
		if p := examineUnit(u.name, u.without, state); p != nil {
			wrong[u.name] = p
		}
	}
	return list, wrong
}

// examineUnit returns what is wrong with a unit, or nil.
func examineUnit(name, without string, state sdnotify.UnitState) *problem.Problem {
	find := func(code problem.Code, format, hint string) *problem.Problem {
		text := fmt.Sprintf(format, name)
		if without != "" && code != "unit-disabled" {
			text += ": " + without
		}
		return &problem.Problem{Code: code, Text: text, Hint: fmt.Sprintf(hint, name)}
	}
	switch {
	case state.Active == "failed":
		return find("unit-failed", "%s has failed", "systemctl status %[1]s shows why; systemctl restart %[1]s")
	case state.Restarting:
		return find("unit-failing", "%s ends again and again", "journalctl -u %s")
	case state.File == "masked":
		return find("unit-masked", "%s is masked", "systemctl unmask %[1]s; systemctl enable --now %[1]s")
	case without == "":
		return nil
	case !state.Up() && !state.StartsAtBoot():
		return find("unit-stopped", "%s is stopped and disabled", "systemctl enable --now %s")
	case !state.Up():
		return find("unit-stopped", "%s is stopped", "systemctl start %s")
	case !state.StartsAtBoot():
		return find("unit-disabled", "%s is disabled: it does not start at boot", "systemctl enable %s")
	}
	return nil
}
