package sdnotify

import (
	"context"
	"fmt"
	"os/user"
	"strconv"

	"github.com/sidemirror/sidemirror/internal/sandbox"
)

// Proxy returns as what systemd runs the proxy, and false if there is no such unit.
func (u Units) Proxy(ctx context.Context) (id sandbox.Service, found bool, err error) {
	state, err := u.State(ctx, ProxyUnit)
	if err != nil || !state.Loaded {
		return sandbox.Service{}, false, err
	}
	name, err := u.property(ctx, ProxyUnit, "Service", "User")
	if err != nil {
		return sandbox.Service{}, false, err
	}
	if name != "" {
		if id, err = lookUp(name); err != nil {
			return sandbox.Service{}, false, err
		}
	}
	if state.Up() {
		if id.PID, err = u.MainPID(ctx, ProxyUnit); err != nil {
			return sandbox.Service{}, false, err
		}
	}
	home, err := u.property(ctx, ProxyUnit, "Service", "ProtectHome")
	if err != nil {
		return sandbox.Service{}, false, err
	}
	if home == "yes" || home == "tmpfs" {
		id.Hidden = append(id.Hidden, "/home", "/root", "/run/user")
	}
	tmp, err := u.value(ctx, ProxyUnit, "Service", "PrivateTmp")
	if private, _ := tmp.(bool); private {
		id.Hidden = append(id.Hidden, "/tmp", "/var/tmp")
	}
	return id, true, err
}

// lookUp returns the identity of a user, by name or id.
func lookUp(name string) (sandbox.Service, error) {
	account, err := user.Lookup(name)
	if err != nil {
		if account, err = user.LookupId(name); err != nil {
			return sandbox.Service{}, fmt.Errorf("looking up the user %s of %s: %w", name, ProxyUnit, err)
		}
	}
	groups, err := account.GroupIds()
	if err != nil {
		return sandbox.Service{}, fmt.Errorf("looking up the groups of the user %s: %w", name, err)
	}
	ids := make([]uint32, 0, len(groups)+2)
	for _, text := range append([]string{account.Uid, account.Gid}, groups...) {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return sandbox.Service{}, fmt.Errorf("looking up the user %s: %w", name, err)
		}
		ids = append(ids, uint32(n))
	}
	return sandbox.Service{UID: ids[0], GID: ids[1], Groups: ids[2:]}, nil
}
