package proxycheck

import (
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/internal/portowner"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/sockdiag"
)

// closedAddress is where no process listens.
func closedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// installed are the units as a package leaves them, with changes.
func installed(changes ...func(map[string]sdnotify.UnitState)) fakeSystemd {
	states := map[string]sdnotify.UnitState{
		sdnotify.SocketUnit:  {Loaded: true, Active: "active", File: "enabled"},
		sdnotify.ProxyUnit:   {Loaded: true, Active: "active", File: "indirect"},
		sdnotify.WatcherUnit: {Loaded: true, Active: "active", File: "enabled"},
	}
	for _, change := range changes {
		change(states)
	}
	return fakeSystemd{text: "serving 4 registries", units: states}
}

func set(unit, active, file string) func(map[string]sdnotify.UnitState) {
	return func(states map[string]sdnotify.UnitState) {
		states[unit] = sdnotify.UnitState{Loaded: true, Active: active, File: file, Restarting: active == "activating"}
	}
}

func TestEachUnitIsLookedAt(t *testing.T) {
	t.Parallel()
	up := respondWith(t, 200, "<title>sidemirror</title>")
	down := closedAddress(t)
	for name, tt := range map[string]struct {
		address string
		systemd fakeSystemd
		codes   []string
		text    string // of the first problem
		hint    string
	}{
		"all well":                        {up, installed(), nil, "", ""},
		"the proxy waits for connections": {up, installed(set(sdnotify.ProxyUnit, "inactive", "indirect")), nil, "", ""},
		"watcher stopped": {up, installed(set(sdnotify.WatcherUnit, "inactive", "enabled")), []string{"unit-stopped"},
			"sidemirror-hosts.service is stopped: the engines' configuration is not maintained", "systemctl start sidemirror-hosts.service"},
		"watcher stopped by revert": {up, installed(set(sdnotify.WatcherUnit, "inactive", "disabled")), []string{"unit-stopped"},
			"sidemirror-hosts.service is stopped and disabled", "systemctl enable --now sidemirror-hosts.service"},
		"watcher not at boot": {up, installed(set(sdnotify.WatcherUnit, "active", "disabled")), []string{"unit-disabled"},
			"does not start at boot", "systemctl enable sidemirror-hosts.service"},
		"watcher failed": {up, installed(set(sdnotify.WatcherUnit, "failed", "enabled")), []string{"unit-failed"},
			"sidemirror-hosts.service has failed", "systemctl status sidemirror-hosts.service shows why; systemctl restart sidemirror-hosts.service"},
		"watcher that ends again and again": {up, installed(set(sdnotify.WatcherUnit, "activating", "enabled")), []string{"unit-failing"},
			"sidemirror-hosts.service ends again and again", "journalctl -u sidemirror-hosts.service"},
		"masked": {up, installed(set(sdnotify.WatcherUnit, "inactive", "masked")), []string{"unit-masked"},
			"sidemirror-hosts.service is masked", "systemctl unmask sidemirror-hosts.service; systemctl enable --now sidemirror-hosts.service"},
		"socket not at boot": {up, installed(set(sdnotify.SocketUnit, "active", "disabled")), []string{"unit-disabled"},
			"sidemirror.socket is disabled: it does not start at boot", "systemctl enable sidemirror.socket"},
		"socket stopped": {down, installed(set(sdnotify.SocketUnit, "inactive", "enabled")), []string{"proxy-down"},
			"so engines use the registries directly: sidemirror.socket is stopped", "systemctl start sidemirror.socket"},
		"socket failed": {down, installed(set(sdnotify.SocketUnit, "failed", "enabled")), []string{"proxy-down"},
			"so engines use the registries directly: sidemirror.socket has failed", "systemctl status sidemirror.socket shows why; systemctl restart sidemirror.socket"},
		"proxy failed": {down, installed(set(sdnotify.ProxyUnit, "failed", "indirect")), []string{"proxy-down"},
			"so engines use the registries directly: sidemirror.service has failed", "systemctl status sidemirror.service shows why; systemctl restart sidemirror.service"},
		"all stopped": {down, installed(set(sdnotify.SocketUnit, "inactive", "disabled"), set(sdnotify.ProxyUnit, "inactive", "disabled"), set(sdnotify.WatcherUnit, "inactive", "disabled")),
			[]string{"proxy-down", "unit-stopped"}, "sidemirror.socket is stopped and disabled", "systemctl enable --now sidemirror.socket"},
		"no answer for no known reason": {down, installed(), []string{"proxy-down"}, "connection refused", "systemctl status sidemirror.socket sidemirror.service"},
		"without systemd":               {down, fakeSystemd{}, []string{"proxy-down"}, "connection refused", "sidemirror serve"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := checker{listenerOf: sockdiag.Listener, checkPort: highPort, trusted: portowner.IsTrusted}
			r := c.check(t.Context(), tt.address, tt.systemd)
			if !slices.Equal(codes(r), tt.codes) || len(r.Units) != len(tt.systemd.units) {
				t.Fatalf("problems %q, units %v", codes(r), r.Units)
			}
			if tt.codes != nil && (!strings.Contains(r.Problems[0].Error(), tt.text) || r.Problems[0].Hint != tt.hint) {
				t.Errorf("%v; hint: %s", r.Problems[0], r.Problems[0].Hint)
			}
		})
	}
}

// That the proxy refuses requests follows from a configuration that cannot be used.
func TestARefusalIsNotReportedNextToItsReason(t *testing.T) {
	t.Parallel()
	c := checker{listenerOf: sockdiag.Listener, checkPort: highPort, trusted: portowner.IsTrusted}
	known := &problem.Problem{Code: "configuration-not-in-force", Text: "the configuration on disk is not in force: a"}
	r := c.check(t.Context(), respondWith(t, 503, "sidemirror"), line("refusing; "+known.Text, nil), known)
	if r.Answers || len(r.Problems) != 1 {
		t.Errorf("%+v", r)
	}
}
