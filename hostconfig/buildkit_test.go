package hostconfig

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
)

const buildkitConf = "/etc/buildkit/buildkitd.toml"

func buildkitHost(t *testing.T, files map[string]string) *Host {
	t.Helper()
	all := map[string]string{"/usr/bin/buildkitd": ""}
	maps.Copy(all, files)
	return host(t, all)
}

func buildkitOnly() engine.Desired {
	return engine.Desired{Mirror: ourURL, Registries: []string{hub, "reg.test:5000"}, Engines: []string{engine.BuildKit}}
}

func TestBuildkitdIsConfiguredAndRevertedToTheByte(t *testing.T) {
	t.Parallel()
	const own = "# by hand\ndebug = true\n\n[registry.\"docker.io\"]\n  mirrors = [\"m.corp\"] # ours\n\n[worker.oci]\n  enabled = false\n"
	for name, tt := range map[string]struct {
		files map[string]string
		path  string
		has   string
	}{
		"no file":      {nil, buildkitConf, "[registry.\"docker.io\"]\n  mirrors = [\"127.0.0.1:305\"]\n"},
		"a file":       {map[string]string{buildkitConf: own}, buildkitConf, "mirrors = [\"127.0.0.1:305\", \"m.corp\"] # ours\n"},
		"a file named": {map[string]string{"/etc/systemd/system/buildkit.service": "[Service]\nExecStart=/usr/bin/buildkitd --config /etc/bk.toml\n", "/etc/bk.toml": own}, "/etc/bk.toml", "mirrors = [\"127.0.0.1:305\", \"m.corp\"] # ours\n"},
		"an empty one": {map[string]string{buildkitConf: ""}, buildkitConf, "[registry.\"reg.test:5000\"]\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := buildkitHost(t, tt.files)
			before := h.snapshot(t)
			do(t, h, buildkitOnly())
			if got := h.get(t, tt.path); !strings.Contains(got, tt.has) {
				t.Errorf("no\n%s\nin\n%s", tt.has, got)
			}
			plan, err := Make(context.Background(), h, buildkitOnly())
			if err != nil || len(plan.Changes) > 0 {
				t.Errorf("after apply there is more to do: %+v, %v", plan.Changes, err)
			}
			if s := stateOf(t, plan, engine.BuildKit); s.Mirror != engine.Active || s.Config != tt.path {
				t.Errorf("mirror %q, file %s", s.Mirror, s.Config)
			}
			if _, err := Revert(context.Background(), h, ourURL); err != nil {
				t.Fatal(err)
			}
			if now := h.snapshot(t); !maps.Equal(now, before) {
				t.Errorf("after revert:\n%v\nbefore:\n%v", now, before)
			}
		})
	}
}

func TestWhatOthersWroteIntoBuildkitdTOMLSinceStays(t *testing.T) {
	t.Parallel()
	h := buildkitHost(t, map[string]string{buildkitConf: "debug = true\n"})
	do(t, h, buildkitOnly())
	h.put(t, buildkitConf, strings.Replace(h.get(t, buildkitConf), "debug = true", "debug = false", 1)+"\n[worker.oci]\n  enabled = false\n")
	if _, err := Revert(context.Background(), h, ourURL); err != nil {
		t.Fatal(err)
	}
	if got, want := h.get(t, buildkitConf), "debug = false\n\n[worker.oci]\n  enabled = false\n"; got != want {
		t.Errorf("the file is %q, want %q", got, want)
	}
}

func TestBuildkitdTOMLThatCannotBeEditedIsReported(t *testing.T) {
	t.Parallel()
	for text, code := range map[string]string{
		"registry.\"docker.io\".http = true\n": "buildkitd-toml-shape",
		"[[\n":                                 "toml-syntax",
	} {
		h := buildkitHost(t, map[string]string{buildkitConf: text})
		plan, err := Make(context.Background(), h, buildkitOnly())
		if err != nil || len(plan.Changes) > 0 || codeList(stateOf(t, plan, engine.BuildKit).Problems) != code {
			t.Errorf("%q: %v, %+v", text, err, plan)
		}
	}
}

// buildkitd reads its configuration at its start only.
func TestBuildkitdIsRestartedOnRequestOnly(t *testing.T) {
	t.Parallel()
	h := buildkitHost(t, nil)
	fake := idle(h)
	fake.buildkit, fake.started = []string{"/usr/bin/buildkitd"}, time.Now().Add(-time.Hour)
	do(t, h, buildkitOnly())
	plan, err := Make(context.Background(), h, buildkitOnly())
	if err != nil {
		t.Fatal(err)
	}
	if s := stateOf(t, plan, engine.BuildKit); s.Mirror != engine.Inactive || codeList(s.Problems) != "buildkit-restart-pending" || len(plan.Signals()) > 0 {
		t.Errorf("%+v, signals %v", s, plan.Signals())
	}
	want := buildkitOnly()
	want.RestartBuildKit = true
	if plan, err = Make(context.Background(), h, want); err != nil || !slices.Equal(plan.Signals(), []live.Signal{{Engine: engine.BuildKit, Verb: live.Restart}}) {
		t.Fatalf("%v, signals %v", err, plan.Signals())
	}
	do(t, h, want)
	if fake.restarts != 1 {
		t.Errorf("%d restarts, want 1", fake.restarts)
	}
	fake.started = time.Now()
	if err := os.Chtimes(h.path(buildkitConf), longAgo, longAgo); err != nil {
		t.Fatal(err)
	}
	if plan, err = Make(context.Background(), h, buildkitOnly()); err != nil || stateOf(t, plan, engine.BuildKit).Mirror != engine.Active {
		t.Errorf("%v, %+v", err, plan.Engines)
	}
	result, err := Revert(context.Background(), h, ourURL)
	if err != nil || codeList(result.Warnings) != "buildkit-not-restarted" {
		t.Errorf("%v, %v", err, result.Warnings)
	}
}
