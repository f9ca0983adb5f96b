package hostconfig

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// The files of containerd can have been edited since its start. A containerd that does not report
// what it has in force cannot be made to do so at will, so these use a fake.
func TestTheStateOfContainerdIsThatOfTheRunningOne(t *testing.T) {
	const certs, other, builtIn = "/etc/containerd/certs.d", "/etc/containerd/other.d", "/etc/containerd/certs.d:/etc/docker/certs.d"
	set := func(path string) string { return "version = 3\n" + criV3 + "\nconfig_path = \"" + path + "\"\n" }
	at := func(path string) *string { return &path }
	long := time.Unix(1e9, 0)
	for name, c := range map[string]struct {
		config  string
		running *string // config_path as containerd reports it; nil if it does not
		started time.Time

		mirror engine.Mirror // after apply
		code   problem.Code  // of a problem; "" if there is none
		files  []string      // folders with hosts.toml files
	}{
		"same":                     {set(certs), at(certs), long, engine.Active, "", []string{certs}},
		"set since":                {set(certs), at(""), long, engine.Inactive, "containerd-restart-needed", []string{certs}},
		"set since, built-in list": {set(certs), at(builtIn), long, engine.Inactive, "containerd-restart-needed", []string{certs}},
		"removed since":            {"version = 3\n", at(certs), long, engine.Active, "containerd-restart-changes", []string{certs}},
		"another since":            {set(other), at(certs), long, engine.Active, "containerd-restart-changes", []string{certs, other}},
		"a list since":             {set(builtIn), at(certs), long, engine.Active, "containerd-restart-changes", []string{certs}},
		"never set":                {"version = 3\n", at(builtIn), long, engine.Inactive, "containerd-config-path", []string{certs}},
		"edited, not reported":     {set(certs), nil, long, engine.Unknown, "containerd-config-newer", []string{certs}},
		"not reported":             {set(certs), nil, time.Now().Add(time.Minute), engine.Active, "", []string{certs}},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t, map[string]string{containerdConfig: c.config, "/etc/kubernetes/": ""})
			h.Versions[engine.Containerd] = "2.4.2"
			fake := idle(h)
			fake.containerd, fake.started, fake.configPath = []string{"containerd"}, c.started, c.running
			before := h.snapshot(t)
			h.apply(t, containerdOnly("r.example"))
			state := h.plan(t, containerdOnly("r.example")).Engines[1]
			if state.Mirror != c.mirror {
				t.Errorf("mirror %s, want %s", state.Mirror, c.mirror)
			}
			has := func(p *problem.Problem) bool { return p.Code == c.code }
			if c.code == "" && len(state.Problems) > 0 || c.code != "" && !slices.ContainsFunc(state.Problems, has) {
				t.Errorf("want problem %q, got %+v", c.code, state.Problems)
			}
			var files []string
			for _, folder := range []string{certs, other} {
				if _, err := os.Stat(h.path(folder + "/r.example/hosts.toml")); err == nil {
					files = append(files, folder)
				}
			}
			if !slices.Equal(files, c.files) {
				t.Errorf("files in %q, want %q", files, c.files)
			}
			h.revert(t)
			sameTree(t, before, h.snapshot(t))
		})
	}
}
