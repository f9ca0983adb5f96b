package hostconfig

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/containersimage"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
)

const (
	mainConf = "/etc/containers/registries.conf"
	earlier  = "/etc/containers/registries.conf.d/00-corp.conf"
	later    = "/etc/containers/registries.conf.d/50-corp.conf"
)

// toolsHost is a host with podman 4.3 and some files.
func toolsHost(t *testing.T, files map[string]string) *Host {
	t.Helper()
	all := map[string]string{"/usr/bin/podman": ""}
	maps.Copy(all, files)
	h := host(t, all)
	h.Versions = map[string]string{engine.Podman: "4.3.1"}
	return h
}

// tools is what podman should do.
func tools(registries ...string) engine.Desired {
	return engine.Desired{Mirror: ourURL, Registries: registries, Engines: []string{engine.Podman, engine.CRIO}}
}

// stateOf returns the state of an engine in a plan.
func stateOf(t *testing.T, plan Plan, name string) engine.State {
	t.Helper()
	for _, s := range plan.Engines {
		if s.Engine == name {
			return s
		}
	}
	t.Fatalf("no state of %s in %+v", name, plan.Engines)
	return engine.State{}
}

// do makes and carries out a plan.
func do(t *testing.T, h *Host, want engine.Desired) {
	t.Helper()
	plan, err := Make(context.Background(), h, want)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Apply(context.Background(), h, plan); err != nil {
		t.Fatal(err)
	}
}

func codeList(list ...[]*problem.Problem) string {
	var all []string
	for _, p := range slices.Concat(list...) {
		all = append(all, string(p.Code))
	}
	return strings.Join(all, " ")
}

// Cases 51 to 56 of the design, and those that it does not list.
func TestAdministratorsRegistriesAreMergedOrLeftAlone(t *testing.T) {
	t.Parallel()
	const plain = "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:305/docker.io\"\ninsecure = true\n"
	for name, tt := range map[string]struct {
		files  map[string]string
		has    []string // in sidemirror's file; none if there must be none
		codes  string   // of problems and notes
		mirror engine.Mirror
	}{
		"no file": {nil, []string{plain}, "", engine.Active},
		"mirrors come after sidemirror's": {
			map[string]string{mainConf: "[[registry]]\nlocation = 'docker.io'\n[[registry.mirror]]\nlocation = 'm.corp'\ninsecure = true\npull-from-mirror = 'tag-only'\n"},
			[]string{plain + "[[registry.mirror]]\nlocation = \"m.corp\"\ninsecure = true\npull-from-mirror = \"tag-only\"\n"}, "", engine.Active,
		},
		"an earlier drop-in is merged": {
			map[string]string{earlier: "[[registry]]\nlocation = 'docker.io'\ninsecure = true\n"},
			[]string{"location = \"docker.io\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"127.0.0.1:305/docker.io\""}, "", engine.Active,
		},
		"digests only": {
			map[string]string{mainConf: "[[registry]]\nlocation = 'docker.io'\nmirror-by-digest-only = true\n"},
			[]string{"mirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"127.0.0.1:305/docker.io\""}, "registry-digest-only", engine.Active,
		},
		"a longer prefix gets an entry of its own": {
			map[string]string{mainConf: "[[registry]]\nprefix = 'docker.io/library'\nlocation = 'docker.io/library'\n[[registry.mirror]]\nlocation = 'm.corp/lib'\n"},
			[]string{plain, "location = \"127.0.0.1:305/docker.io/library\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"m.corp/lib\"\n"}, "", engine.Active,
		},
		"short names stay": {map[string]string{mainConf: "unqualified-search-registries = ['docker.io']\nshort-name-mode = 'enforcing'\n[aliases]\n'redis' = 'docker.io/library/redis'\n"}, []string{plain}, "", engine.Active},
		"blocked":          {map[string]string{mainConf: "[[registry]]\nlocation = 'docker.io'\nblocked = true\n"}, nil, "registry-blocked", ""},
		"pulled from another registry": {
			map[string]string{mainConf: "[[registry]]\nprefix = 'docker.io'\nlocation = 'hub.corp'\n"}, nil, "registry-elsewhere", "",
		},
		"a later drop-in replaces sidemirror's": {
			map[string]string{later: "[[registry]]\nlocation = 'docker.io'\n"}, nil, "registries-conf-replaced", engine.Inactive,
		},
		"an unknown key in the entry": {
			map[string]string{mainConf: "[[registry]]\nlocation = 'docker.io'\nmirrors = ['m.corp']\n"}, nil, "registries-conf-unknown-key", engine.Inactive,
		},
		"a key outside all entries": {map[string]string{mainConf: "mirror-by-digest-only = true\n"}, []string{plain}, "registries-conf-unknown-key", engine.Active},
		"version 1":                 {map[string]string{mainConf: "[registries.search]\nregistries = ['docker.io']\n"}, nil, "registries-conf-v1", engine.Unknown},
		"not TOML":                  {map[string]string{later: "[[registry\n"}, nil, "registries-conf-syntax", engine.Unknown},
		"what the library refuses":  {map[string]string{later: "[[registry]]\nlocation = 'https://m.corp'\n"}, nil, "registries-conf-invalid", engine.Unknown},
		"a file that is no drop-in": {map[string]string{later + ".bak": "[[registry\n"}, []string{plain}, "", engine.Active},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := toolsHost(t, tt.files)
			before := h.snapshot(t)
			plan, err := Make(context.Background(), h, tools(hub))
			if err != nil {
				t.Fatal(err)
			}
			s := stateOf(t, plan, engine.Podman)
			if got := codeList(s.Problems, s.Notes); got != tt.codes {
				t.Errorf("problems and notes %q, want %q", got, tt.codes)
			}
			_, _ = Apply(context.Background(), h, plan)
			if tt.has == nil {
				h.missing(t, containersimage.File)
			}
			for _, want := range tt.has {
				if got := h.get(t, containersimage.File); !strings.Contains(got, want) {
					t.Errorf("no\n%s\nin\n%s", want, got)
				}
			}
			if plan, err = Make(context.Background(), h, tools(hub)); err != nil || len(plan.Changes) > 0 {
				t.Errorf("after apply there is more to do: %+v, %v", plan.Changes, err)
			}
			if s := stateOf(t, plan, engine.Podman); s.Mirror != tt.mirror {
				t.Errorf("mirror %q, want %q", s.Mirror, tt.mirror)
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

func TestWhatOthersAddToSidemirrorsDropInStays(t *testing.T) {
	t.Parallel()
	const added = "\n[[registry]]\nlocation = \"added.test\"\n"
	h := toolsHost(t, nil)
	do(t, h, tools(hub))
	h.put(t, containersimage.File, h.get(t, containersimage.File)+added)
	if _, err := Revert(context.Background(), h, ourURL); err != nil {
		t.Fatal(err)
	}
	if got := h.get(t, containersimage.File); got != added {
		t.Errorf("the file is %q, want %q", got, added)
	}
}

func TestAChangedEntryOfTheAdministratorsIsMergedAnew(t *testing.T) {
	t.Parallel()
	h := toolsHost(t, map[string]string{mainConf: "[[registry]]\nlocation = 'docker.io'\n"})
	do(t, h, tools(hub))
	h.put(t, mainConf, "[[registry]]\nlocation = 'docker.io'\n[[registry.mirror]]\nlocation = 'm.corp'\n")
	do(t, h, tools(hub))
	if got := h.get(t, containersimage.File); !strings.Contains(got, "m.corp") {
		t.Errorf("no m.corp in\n%s", got)
	}
	h.put(t, mainConf, "[[registry]]\nlocation = 'docker.io'\nblocked = true\n")
	do(t, h, tools(hub))
	h.missing(t, containersimage.File)
}

func TestADropInWithoutAJournalIsRemovedByItsMark(t *testing.T) {
	t.Parallel()
	h := toolsHost(t, nil)
	do(t, h, tools(hub))
	text := h.get(t, containersimage.File)
	lost := toolsHost(t, map[string]string{containersimage.File: text, containersimage.ProbeFile: text})
	if _, err := Revert(context.Background(), lost, ourURL); err != nil {
		t.Fatal(err)
	}
	lost.missing(t, containersimage.File)
	lost.missing(t, containersimage.ProbeFile)
}

func TestNothingIsWrittenForToolsThatAreNotInstalled(t *testing.T) {
	t.Parallel()
	h := host(t, map[string]string{mainConf: ""})
	do(t, h, tools(hub))
	h.missing(t, containersimage.File)
}

// podman 6 reads more files than podman 5.
func TestFilesOfPodmanSix(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"/usr/share/containers/registries.conf": "[[registry]]\nlocation = 'docker.io'\n[[registry.mirror]]\nlocation = 'm.corp'\n",
		"/usr/bin/skopeo":                       "",
	}
	for podman, tt := range map[string]struct {
		skopeo string
		has    bool
		codes  string
	}{
		"5.8.0": {"1.22.0", false, ""},
		"6.0.0": {"1.23.0", true, ""},
		"6.1.0": {"1.22.0", false, "registries-conf-generations"},
	} {
		h := toolsHost(t, files)
		h.Versions = map[string]string{engine.Podman: podman, "skopeo": tt.skopeo}
		plan, err := Make(context.Background(), h, tools(hub))
		if err != nil {
			t.Fatal(err)
		}
		s := stateOf(t, plan, engine.Podman)
		if got := codeList(s.Problems); got != tt.codes {
			t.Errorf("podman %s: problems %q, want %q", podman, got, tt.codes)
		}
		if tt.codes != "" {
			continue
		}
		do(t, h, tools(hub))
		if got := strings.Contains(h.get(t, containersimage.File), "m.corp"); got != tt.has {
			t.Errorf("podman %s: the mirror of /usr/share is there: %v, want %v", podman, got, tt.has)
		}
	}
}

func TestRootsOwnRegistriesConfIsReported(t *testing.T) {
	t.Parallel()
	h := toolsHost(t, map[string]string{"/root/.config/containers/registries.conf": "", "/home/ada/.config/containers/registries.conf": ""})
	idle(h)
	plan, err := Make(context.Background(), h, tools(hub))
	if err != nil {
		t.Fatal(err)
	}
	s := stateOf(t, plan, engine.Podman)
	if got := codeList(s.Problems); !strings.Contains(got, "registries-conf-of-root") {
		t.Errorf("problems %q", got)
	}
	if got := codeList(s.Notes); got != "registries-conf-of-user" {
		t.Errorf("notes %q", got)
	}
}

func TestCRIOIsReloadedAfterEachChange(t *testing.T) {
	t.Parallel()
	h := host(t, map[string]string{"/usr/bin/crio": ""})
	h.Versions = map[string]string{engine.CRIO: "1.35.0"}
	fake := idle(h)
	fake.crio = true
	do(t, h, tools(hub))
	if _, err := Revert(context.Background(), h, ourURL); err != nil {
		t.Fatal(err)
	}
	if fake.reloads != 2 {
		t.Errorf("CRI-O was reloaded %d times, want 2", fake.reloads)
	}
}

// That skopeo comes is tested with the real one, in test/hosts.
func TestASkopeoThatDoesNotComeIsWarnedOf(t *testing.T) {
	t.Parallel()
	h := toolsHost(t, map[string]string{"/usr/bin/skopeo": "#!/bin/sh\nexit 1\n"})
	if err := os.Chmod(h.path("/usr/bin/skopeo"), 0o755); err != nil {
		t.Fatal(err)
	}
	idle(h).execute = true
	h.Probe = true
	before := h.snapshot(t)
	plan, err := Make(context.Background(), h, tools(hub))
	if err != nil {
		t.Fatal(err)
	}
	result, err := Apply(context.Background(), h, plan)
	if err != nil || codeList(result.Warnings) != "probe-failed" {
		t.Errorf("%v, warnings %v", err, result.Warnings)
	}
	if _, err := Revert(context.Background(), h, ourURL); err != nil {
		t.Fatal(err)
	}
	if now := h.snapshot(t); !maps.Equal(now, before) {
		t.Errorf("after revert:\n%v\nbefore:\n%v", now, before)
	}
}

// guarded are the entries of sidemirror's drop-in that are for a port of a host and name no mirror.
func guarded(t *testing.T, h *Host, host string) (ports []string) {
	t.Helper()
	for block := range strings.SplitSeq(h.get(t, containersimage.File), "[[registry]]") {
		if _, rest, found := strings.Cut(block, "prefix = \""+host+":"); found && !strings.Contains(block, "registry.mirror") {
			port, _, _ := strings.Cut(rest, "\"")
			ports = append(ports, port)
		}
	}
	return ports
}

func TestPortsThatTheHostsFilesNameAreNotMirrored(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"a login by podman":     {"/run/containers/0/auth.json": `{"auths": {"reg.test:9123": {"auth": "YTpi"}}}`},
		"a login by docker":     {"/root/.docker/config.json": `{"auths": {"https://reg.test:9123/v2/": {}}}`},
		"the kubelet's login":   {"/var/lib/kubelet/config.json": `{"auths": {"reg.test:9123/team": {}}}`},
		"a certificate":         {"/etc/containers/certs.d/reg.test:9123/ca.crt": ""},
		"one of Docker":         {"/etc/docker/certs.d/reg.test:9123/ca.crt": ""},
		"containerd's file":     {"/etc/containerd/certs.d/reg.test:9123/hosts.toml": ""},
		"an insecure registry":  {"/etc/docker/daemon.json": `{"insecure-registries": ["REG.test:9123"]}`},
		"a policy":              {"/etc/containers/policy.json": `{"transports": {"docker": {"reg.test:9123/a": []}}}`},
		"a place of signatures": {"/etc/containers/registries.d/reg.yaml": "docker:\n  reg.test:9123:\n    lookaside: https://s\n"},
		"a container's unit":    {"/etc/containers/systemd/app.container": "[Container]\nImage=reg.test:9123/app:v1\n"},
		"a static pod":          {"/etc/kubernetes/manifests/app.yaml": "image: reg.test:9123/app@sha256:0\n"},
		"a service":             {"/etc/systemd/system/app.service": "[Service]\nExecStart=podman run reg.test:9123/app\n"},
	} {
		t.Run(name, func(t *testing.T) {
			h := toolsHost(t, files)
			do(t, h, tools("reg.test"))
			if got := guarded(t, h, "reg.test"); !slices.Contains(got, "9123") {
				t.Errorf("these ports have an entry: %q", got)
			}
		})
	}
}

// Without a login that named it, the port would be mirrored and pulls from it would fail.
func TestAPortIsNotForgottenWhenTheFileThatNamedItIsGone(t *testing.T) {
	t.Parallel()
	const login = "/run/containers/0/auth.json"
	h := toolsHost(t, map[string]string{login: `{"auths": {"reg.test:9123": {}}}`})
	do(t, h, tools("reg.test"))
	h.put(t, login, "{}")
	do(t, h, tools("reg.test"))
	if got := guarded(t, h, "reg.test"); !slices.Contains(got, "9123") {
		t.Errorf("these ports have an entry: %q", got)
	}
}

func TestOnlyPortsOfMirroredHostsCount(t *testing.T) {
	t.Parallel()
	var many strings.Builder
	for port := 20000; port < 21000; port++ {
		fmt.Fprintf(&many, "reg.test:%d\n", port)
	}
	h := toolsHost(t, map[string]string{
		"/etc/systemd/system/a.service": "other.test:9001 my-reg.test:9002 a.reg.test:9003 reg.test:99999 reg.test:0 reg.test:",
		"/etc/systemd/system/b.service": many.String(),
	})
	without := toolsHost(t, nil)
	for _, each := range []*Host{h, without} {
		do(t, each, tools("reg.test"))
	}
	usual := len(guarded(t, without, "reg.test"))
	got := guarded(t, h, "reg.test")
	if len(got) <= usual || len(got) > usual+64 {
		t.Errorf("%d ports have an entry, %d without files", len(got), usual)
	}
	for _, port := range []string{"9001", "9002", "9003", "99999", "0"} {
		if slices.Contains(got, port) {
			t.Errorf("port %s has an entry", port)
		}
	}
	if text := h.get(t, containersimage.File); strings.Contains(text, "other.test") {
		t.Errorf("a host that is not mirrored has an entry:\n%s", text)
	}
}
