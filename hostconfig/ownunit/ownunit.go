// Package ownunit plans drop-ins of sidemirror's own service, for hosts on which it needs more rights
// than its unit gives it: to reach link-local addresses, and to listen on the bridges of guests.
//
// The unit denies link-local addresses: metadata servers hand out the credentials of the machine there. Two things
// need them. Credential helpers and plugins of clouds ask the metadata server, and on some clouds the
// host's name server has such an address. The proxy itself still follows no redirect there.
//
// On bridges, which come and go, systemd cannot hold the sockets. For a port below 1024 the service needs
// a capability to open them itself.
package ownunit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/hostconfig/unitfile"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/resolvconf"
)

const (
	service = "sidemirror.service"

	folder = "/etc/systemd/system/" + service + ".d/"

	// File is the drop-in for link-local addresses.
	File = folder + "link-local.conf"

	// GuestsFile is the drop-in for the ports of guests.
	GuestsFile = folder + "guests.conf"

	// bindService is the capability that opens ports below 1024 (capabilities(7)).
	bindService = "CAP_NET_BIND_SERVICE"
)

// metadata are the link-local addresses of the metadata servers of clouds: of machines (AWS, Azure,
// Google, Oracle and others), of containers (AWS ECS) and of pods (AWS EKS). Those that are not
// link-local, as AWS's IPv6 ones, are not denied.
var metadata = []string{"169.254.169.254", "169.254.170.2", "169.254.170.23"}

// unit is sidemirror's service on a host.
type unit struct{ *engine.Host }

// Engines returns the service as one that a plan looks at. Its state is not reported.
func Engines(h *engine.Host) []engine.Engine { return []engine.Engine{unit{h}} }

// Name is [engine.Sidemirror].
func (unit) Name() string { return engine.Sidemirror }

// Detect finds out whether systemd has the service.
func (u unit) Detect(ctx context.Context) (engine.State, bool) {
	s := engine.State{Engine: engine.Sidemirror}
	installed, err := unitfile.Read(u.Tree, service)
	s.Present = err != nil || len(installed.Args) > 0 // one that cannot be read is there
	s.Running = u.Running != nil && u.Running.Daemon(ctx, engine.Sidemirror) != nil
	return s, false
}

// Plan asks for the drop-ins that something needs.
func (u unit) Plan(ctx context.Context, s engine.State, want engine.Desired) engine.Plan {
	p := engine.Plan{State: s, Configs: []engine.Config{{Path: File, Kind: engine.DropIn}, {Path: GuestsFile, Kind: engine.DropIn}}}
	if !want.Service {
		return p
	}
	allow := u.allowances(want)
	if len(allow) > 0 && s.Present {
		p.Edits = append(p.Edits, engine.Edit{
			Path: File, Entry: entry{splice.DropIn{Allow: allow}},
			Why: "lets sidemirror's service reach link-local addresses: " + reasons(allow),
		})
	}
	if want.GuestPort && s.Present {
		p.Edits = append(p.Edits, engine.Edit{
			Path: GuestsFile, Entry: entry{splice.DropIn{Allow: []splice.Allowance{{
				Why: "guests.networks is set: to listen on a port below 1024 of bridges", Capability: bindService,
			}}}},
			Why: "lets sidemirror's service listen on a port below 1024 of the bridges of guests",
		})
	}
	if d, ok := u.daemon(ctx).(daemon); ok && s.Present {
		p.Pending = d.pending(ctx)
	}
	return p
}

func (u unit) daemon(ctx context.Context) live.Daemon {
	if u.Running == nil {
		return nil
	}
	return u.Running.Daemon(ctx, engine.Sidemirror)
}

// allowances returns what the service must reach, and why.
func (u unit) allowances(want engine.Desired) []splice.Allowance {
	var list []splice.Allowance
	if why := u.helpers(want); why != "" {
		list = append(list, splice.Allowance{Why: why + ": the metadata servers of clouds", Addresses: metadata})
	}
	u.Tree.Watch(resolvconf.Path)
	var servers []string
	for _, server := range resolvconf.LinkLocal(u.Tree.Peek(resolvconf.Path)) {
		servers = append(servers, server.WithZone("").String())
	}
	if len(servers) > 0 {
		list = append(list, splice.Allowance{Why: resolvconf.Path + " names a link-local name server", Addresses: servers})
	}
	return list
}

// helpers returns why a helper or a plugin may run, or "" if none is configured.
func (u unit) helpers(want engine.Desired) string {
	if want.Helpers {
		return "a credential helper or plugin is configured"
	}
	const named = "a file of credentials names a credential helper"
	for _, name := range want.CredentialFiles {
		u.Tree.Watch(name)
		data := u.Tree.Peek(name)
		// The watcher sees neither homes nor what systemd hands to the service, and must not undo what
		// a person has applied.
		if namesHelper(data) || data == nil && bytes.Contains(u.Tree.Peek(File), []byte("# "+named)) {
			return named
		}
	}
	return ""
}

// namesHelper reports whether a file in the format of Docker's config.json names a credential helper.
func namesHelper(data []byte) bool {
	var file struct {
		Store   string            `json:"credsStore"`
		Helpers map[string]string `json:"credHelpers"`
	}
	return json.Unmarshal(data, &file) == nil && (file.Store != "" || len(file.Helpers) > 0)
}

func reasons(allow []splice.Allowance) string {
	list := make([]string, len(allow))
	for i, a := range allow {
		list[i] = a.Why
	}
	return strings.Join(list, "; ")
}

// entry is what the drop-in has.
type entry struct{ splice.DropIn }

// Kind is [engine.DropIn].
func (entry) Kind() engine.Kind { return engine.DropIn }

// Merge reports false: no other edit leads to this file.
func (entry) Merge(engine.Entry) (engine.Entry, bool) { return nil, false }

// daemon is the service on a host on which systemd runs.
type daemon struct{ units live.Units }

// Connect returns the service that units runs.
func Connect(units live.Units) live.Daemon { return daemon{units} }

// pending returns the signal that is still needed if a run was killed before it could send it.
func (d daemon) pending(ctx context.Context) *engine.Pending {
	outdated, err := d.units.Outdated(ctx, service)
	if err != nil || !outdated {
		return nil
	}
	return &engine.Pending{
		Signal: live.Signal{Engine: engine.Sidemirror, Verb: live.Reload}, File: File,
		Problem: problem.Problem{Code: "unit-outdated", Text: "systemd has not read the files of " + service + " since they changed", Hint: "sidemirror apply"},
	}
}

func (daemon) Args() []string     { return nil }
func (daemon) Started() time.Time { return time.Time{} }

// Info is empty.
func (daemon) Info(context.Context) (live.Info, error) { return live.Info{}, nil }

// Signal makes systemd read the drop-in and restarts the service. That loses no request: systemd holds
// the sockets.
func (d daemon) Signal(ctx context.Context, verb live.Verb) error {
	if verb != live.Reload {
		return fmt.Errorf("%s is never told to %s", service, verb)
	}
	if err := d.units.Reconfigure(ctx, service); err != nil {
		return &problem.Problem{Code: "unit-reload-failed", Text: "the new settings of " + service + " are not in force", Err: err, Hint: "systemctl daemon-reload && systemctl restart sidemirror"}
	}
	return nil
}
