package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/sidemirror/sidemirror/daemon/proxycheck"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func whole(name string) engine.State {
	return engine.State{
		Engine: name, Present: true, Running: true, Version: "1.2.3", Mirror: engine.Active,
		Files: []engine.File{{Path: "/etc/" + name, State: engine.InPlace}},
	}
}

// examination is of a host on which all is well.
func examination(states ...engine.State) *Examination {
	return &Examination{
		File: "/etc/sidemirror/config.toml", Registries: []string{"docker.io", "ghcr.io"},
		Plan:     hostconfig.Plan{Engines: states},
		Proxy:    &proxycheck.Report{Address: "http://127.0.0.1:305", Answers: true},
		Try:      func(context.Context, string, string) error { return nil },
		Registry: func(context.Context, string) ([]Link, error) { return []Link{{Name: "connection", State: Sound}}, nil },
	}
}

// summary is each chain with the states of its links: "docker 1.2.3: ok ok".
func summary(chains []Chain) string {
	var lines []string
	for _, c := range chains {
		states := make([]string, len(c.Links))
		for i, l := range c.Links {
			states[i] = string(l.State)
		}
		lines = append(lines, c.Name+": "+strings.Join(states, " "))
	}
	return strings.Join(lines, "; ")
}

func TestEachChainEndsAtItsFirstBrokenLink(t *testing.T) {
	t.Parallel()
	wrong := func(code problem.Code) []*problem.Problem { return []*problem.Problem{{Code: code, Text: "is wrong"}} }
	for name, test := range map[string]struct {
		change func(e *Examination)
		want   string
		code   string // of the problem that is shown
	}{
		"all is well": {func(*Examination) {}, "sidemirror: ok ok ok; docker 1.2.3: ok ok; docker.io: ok; ghcr.io: ok", ""},
		"a faulty configuration, of which the last good one serves": {func(e *Examination) { e.Configuration = wrong("configuration-not-in-force") },
			"sidemirror: broken ok ok; docker 1.2.3: ok ok; docker.io: ok; ghcr.io: ok", "configuration-not-in-force"},
		"no proxy": {func(e *Examination) { e.Proxy.Problems, e.Proxy.Answers = wrong("proxy-down"), false },
			"sidemirror: ok broken; docker 1.2.3: ok skipped", "proxy-down"},
		"a unit that is stopped, and a proxy that serves": {func(e *Examination) { e.Proxy.Problems = wrong("unit-stopped") },
			"sidemirror: ok broken ok; docker 1.2.3: ok ok; docker.io: ok; ghcr.io: ok", "unit-stopped"},
		"a problem that the daemon reports": {func(e *Examination) {
			e.Reported = wrong("port-unprivileged")
			e.Proxy.Problems = e.Reported
		}, "sidemirror: ok ok broken; docker 1.2.3: ok ok; docker.io: ok; ghcr.io: ok", "port-unprivileged"},
		"a disk that is full": {func(e *Examination) {
			e.Reported = wrong("cache-disk-full")
			e.Proxy.Problems = e.Reported
		}, "sidemirror: ok ok ok broken; docker 1.2.3: ok ok; docker.io: ok; ghcr.io: ok", "cache-disk-full"},
		"a disk with room": {func(e *Examination) {
			e.Disk = func(context.Context) (string, error) { return "1 GiB stored", nil }
		}, "sidemirror: ok ok ok ok; docker 1.2.3: ok ok; docker.io: ok; ghcr.io: ok", ""},
		"a caller who may not ask the daemon": {func(e *Examination) {
			e.Disk = func(context.Context) (string, error) { return "", fs.ErrPermission }
			e.Registry = func(context.Context, string) ([]Link, error) { return nil, fs.ErrPermission }
		}, "sidemirror: ok ok ok skipped; docker 1.2.3: ok ok; docker.io: skipped; ghcr.io: skipped", ""},
		"a problem of the engine's": {func(e *Examination) { e.Plan.Engines[0].Problems = wrong("containerd-config-path-empty") },
			"sidemirror: ok ok ok; docker 1.2.3: broken; docker.io: ok; ghcr.io: ok", "containerd-config-path-empty"},
		"a missing file": {func(e *Examination) { e.Plan.Engines[0].Files[0].State = engine.Missing },
			"sidemirror: ok ok ok; docker 1.2.3: broken; docker.io: ok; ghcr.io: ok", "files-pending"},
		"an engine that pulls past sidemirror": {func(e *Examination) {
			e.Try = func(context.Context, string, string) error { return errors.New("manifest unknown") }
		}, "sidemirror: ok ok ok; docker 1.2.3: ok broken; docker.io: ok; ghcr.io: ok", "test-pull-failed"},
		"an engine that cannot be asked": {func(e *Examination) {
			e.Try = func(context.Context, string, string) error { return hostconfig.ErrNoPull }
		}, "sidemirror: ok ok ok; docker 1.2.3: ok skipped; docker.io: ok; ghcr.io: ok", ""},
		"a stopped engine": {func(e *Examination) { e.Plan.Engines[0].Stopped, e.Plan.Engines[0].Running = true, false },
			"sidemirror: ok ok ok; docker 1.2.3: ok skipped; docker.io: ok; ghcr.io: ok", ""},
		"an engine that is not used": {func(e *Examination) { e.Plan.Engines[0].Mirror = engine.Inactive },
			"sidemirror: ok ok ok; docker 1.2.3: ok skipped; docker.io: ok; ghcr.io: ok", ""},
		"an absent engine": {func(e *Examination) { e.Plan.Engines[0].Present = false },
			"sidemirror: ok ok ok; docker.io: ok; ghcr.io: ok", ""},
		"a registry that is away": {func(e *Examination) {
			e.Registry = func(_ context.Context, name string) ([]Link, error) {
				if name == "ghcr.io" {
					return []Link{{Name: "connection", State: Broken, Problems: wrong("upstream-unreachable")}}, nil
				}
				return []Link{{Name: "connection", State: Sound}}, nil
			}
		}, "sidemirror: ok ok ok; docker 1.2.3: ok ok; docker.io: ok; ghcr.io: broken", "upstream-unreachable"},
		"a daemon that cannot be asked": {func(e *Examination) {
			e.Registry = func(context.Context, string) ([]Link, error) { return nil, errors.New("no socket") }
		}, "sidemirror: ok ok ok; docker 1.2.3: ok ok; docker.io: skipped; ghcr.io: skipped", ""},
		"a caller who is not root": {func(e *Examination) { e.Plan.Notes = wrong("not-root") },
			"sidemirror: skipped ok ok ok; docker 1.2.3: ok skipped; docker.io: ok; ghcr.io: ok", ""},
		"a file that the caller may not read": {func(e *Examination) {
			e.Plan.Engines[0].Problems = []*problem.Problem{{Code: "permission-denied", Path: "/etc/docker/daemon.json", Text: "opening it", Err: fs.ErrPermission, Hint: "run as root"}}
		}, "sidemirror: ok ok ok; docker 1.2.3: skipped; docker.io: ok; ghcr.io: ok", ""},
		"a file that the service may not replace": {func(e *Examination) {
			e.Plan.Engines[0].Problems = []*problem.Problem{{Code: "permission-denied", Text: "belongs to user 7"}}
		}, "sidemirror: ok ok ok; docker 1.2.3: broken; docker.io: ok; ghcr.io: ok", "permission-denied"},
		"a report that the caller may not read": {func(e *Examination) { e.Unreported = fs.ErrPermission },
			"sidemirror: ok ok skipped; docker 1.2.3: ok ok; docker.io: ok; ghcr.io: ok", ""},
		"another root": {func(e *Examination) { e.Proxy, e.Try, e.Registry = nil, nil, nil },
			"sidemirror: ok; docker 1.2.3: ok skipped", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := examination(whole("docker"))
			test.change(e)
			shown := 0
			chains := e.Examine(t.Context(), func(Chain) { shown++ })
			if got := summary(chains); got != test.want || shown != len(chains) {
				t.Errorf("got  %s\nwant %s; %d of %d shown", got, test.want, shown, len(chains))
			}
			var codes []string
			for _, c := range chains {
				for _, l := range c.Links {
					for _, p := range l.Problems {
						codes = append(codes, string(p.Code))
					}
				}
			}
			if want := slices.DeleteFunc([]string{test.code}, func(s string) bool { return s == "" }); !slices.Equal(codes, want) {
				t.Errorf("codes %q, want %q", codes, want)
			}
		})
	}
}

func TestATestPullUsesATagThatNoStoreHas(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	e := examination(whole("docker"), whole("podman"))
	hubOnly := whole("old-docker")
	hubOnly.HubOnly = true
	e.Plan.Engines = append(e.Plan.Engines, hubOnly)
	e.Try = func(_ context.Context, name, reference string) error {
		registry, _, _ := strings.Cut(reference, "/")
		if seen[reference] {
			t.Errorf("%s twice", reference)
		}
		if name == "old-docker" && registry != "docker.io" {
			t.Errorf("%s is asked for %s", name, reference)
		}
		seen[reference] = true
		return nil
	}
	e.Examine(t.Context(), func(Chain) {})
	if len(seen) != 5 {
		t.Errorf("%d pulls: %v", len(seen), seen)
	}
}

func TestALinkInJSONHasItsListOfProblems(t *testing.T) {
	t.Parallel()
	out, err := json.Marshal(Link{Name: "service", State: Sound, Text: "responds"})
	if want := `{"name":"service","state":"ok","text":"responds","problems":[]}`; err != nil || string(out) != want {
		t.Errorf("%s, %v", out, err)
	}
}
