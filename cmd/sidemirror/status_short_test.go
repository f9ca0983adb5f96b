package main

import (
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/internal/problem"
)

func TestShortStatusHasAtMostThreeLines(t *testing.T) {
	files := func(state engine.FileState, names ...string) (list []engine.File) {
		for _, name := range names {
			list = append(list, engine.File{Path: name, State: state})
		}
		return list
	}
	docker := engine.State{Engine: "docker", Present: true, Mirror: engine.Active, Files: files(engine.InPlace, "/d1", "/d2")}
	containerd := engine.State{Engine: "containerd", Present: true, Mirror: engine.Active, Files: files(engine.InPlace, "/c1")}
	deaf := engine.State{Engine: "containerd", Present: true, Mirror: engine.Inactive, Files: files(engine.InPlace, "/c1"),
		Problems: []*problem.Problem{{Path: "/c.toml", Text: "config_path is empty", Hint: "sidemirror apply --restart-containerd"}}}
	k3s := containerd
	k3s.Home, k3s.Files = "k3s", files(engine.InPlace, "/k1")
	new := docker
	new.Mirror, new.Files = engine.Inactive, files(engine.Missing, "/d1", "/d2")
	hubRefused := docker
	hubRefused.Mirror = engine.Partial
	hubRefused.Files = append(files(engine.Refused, "/d1"), files(engine.InPlace, "/d2")...)
	immutable := &problem.Problem{Path: "/d1", Text: "is immutable"}
	hubRefused.Problems = []*problem.Problem{immutable}
	hubOnly, off := docker, docker
	hubOnly.Mirror, hubOnly.HubOnly, hubOnly.Files = engine.Partial, true, files(engine.InPlace, "/d1")
	off.Stopped = true
	states := func(s ...engine.State) []engine.State { return s }
	for name, test := range map[string]struct {
		s     status
		first string
		worst string // the second line; empty if there is none
	}{
		"no problem": {status{Engines: states(docker, containerd)},
			"docker and containerd pull through sidemirror (3 files)", ""},
		"three engines": {status{Engines: states(docker, containerd, k3s)},
			"docker, containerd and containerd of k3s pull through sidemirror (4 files)", ""},
		"no engine": {status{Engines: states(engine.State{Engine: "docker"}, engine.State{Engine: "containerd"})},
			"no container engine is on this host; sidemirror configures one that is installed later", ""},
		"containerd needs a restart": {status{Engines: states(docker, deaf)},
			"docker pulls through sidemirror (2 files)", "containerd: /c.toml: config_path is empty; hint: sidemirror apply --restart-containerd"},
		"only containerd, which needs a restart": {status{Engines: states(deaf)},
			"no container engine pulls through sidemirror yet; 1 file prepared",
			"containerd: /c.toml: config_path is empty; hint: sidemirror apply --restart-containerd"},
		"nothing written yet": {status{Engines: states(new), Pending: []string{"/d1", "/d2"}, Signals: []live.Signal{{Engine: "docker", Verb: live.Reload}}},
			"no container engine pulls through sidemirror yet", "2 files must be changed; hint: sidemirror apply (sidemirror plan shows what it does)"},
		"Docker Hub's own file refused": {status{Engines: states(hubRefused, containerd), Refused: []*problem.Problem{immutable}},
			"containerd pulls through sidemirror; docker pulls only partly through sidemirror (2 files)", "docker: /d1: is immutable"},
		"docker not reloaded": {status{Engines: states(docker), Signals: []live.Signal{{Engine: "docker", Verb: live.Reload}}},
			"docker pulls through sidemirror (2 files)", "docker: needs a reload to take its configuration; hint: sidemirror apply (sidemirror plan shows what it does)"},
		"proxy down, and more": {status{Engines: states(docker, deaf), Proxy: problemOf("sidemirror does not respond", "systemctl start sidemirror.socket"), Refused: []*problem.Problem{immutable}},
			"docker is set up to pull through sidemirror, which does not serve (2 files)",
			"sidemirror does not respond; hint: systemctl start sidemirror.socket (2 more: sidemirror status)"},
		"no configuration": {status{Engines: states(docker), unused: true, Proxy: &proxyStatus{Problems: []*problem.Problem{{Text: "a", Hint: "sidemirror config check"}}}},
			"no configuration can be used, so engines use the registries directly", "a; hint: sidemirror config check"},
		"Docker that mirrors Docker Hub alone": {status{Engines: states(hubOnly), mirror: "http://127.0.0.1:305"},
			"docker pulls through sidemirror from Docker Hub only (1 file); pull other registries as localhost:305/ghcr.io/…", ""},
		"Docker that mirrors Docker Hub alone, and containerd": {status{Engines: states(hubOnly, containerd), mirror: "http://127.0.0.1:205"},
			"containerd pulls through sidemirror; docker pulls through sidemirror from Docker Hub only (2 files); pull other registries as localhost:205/ghcr.io/…", ""},
		"a stopped engine": {status{Engines: states(off)},
			"docker (stopped) pulls through sidemirror (2 files)", ""},
		"proxy with a problem": {status{Engines: states(docker), Proxy: &proxyStatus{Answers: true, Problems: []*problem.Problem{{Text: "nothing new is stored: the disk is full"}}}},
			"docker pulls through sidemirror (2 files)", "nothing new is stored: the disk is full"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if err := test.s.writeShort(&out, "apt remove sidemirror"); err != nil {
				t.Fatal(err)
			}
			want := "sidemirror: " + test.first + "\n"
			if test.worst != "" {
				want += "sidemirror: " + test.worst + "\n"
			}
			want += "sidemirror: to undo it: apt remove sidemirror\n"
			if out.String() != want {
				t.Errorf("got:\n%swant:\n%s", out.String(), want)
			}
		})
	}
}

func TestShortStatusNamesTheWayBackOfThisHost(t *testing.T) {
	for files, want := range map[string]string{
		"etc/docker/x": "sidemirror revert",
		"var/lib/dpkg/info/sidemirror.list usr/bin/sidemirror":              "apt remove sidemirror",
		"usr/bin/sidemirror usr/bin/dnf":                                    "dnf remove sidemirror",
		"usr/bin/sidemirror usr/bin/zypper":                                 "zypper remove sidemirror",
		"usr/bin/sidemirror usr/bin/rpm":                                    "rpm --erase sidemirror",
		"usr/bin/dnf usr/local/bin/sidemirror":                              "sidemirror revert",
		"usr/local/lib/systemd/system/sidemirror-hosts.service usr/bin/dnf": "make uninstall",
	} {
		content := map[string]string{}
		for name := range strings.FieldsSeq(files) {
			content[name] = ""
		}
		root := tree(t, content)
		out, _, _ := invoke(t, "status", "--short", "--root", root)
		wants(t, out, "sidemirror: to undo it: "+want)
		if lines := strings.Count(out, "\n"); lines < 2 || lines > 3 {
			t.Errorf("%d lines:\n%s", lines, out)
		}
	}
}

func TestShortStatusAndJSONExcludeEachOther(t *testing.T) {
	_, stderr := command(t, 2, "status", "--short", "--json", "--root", t.TempDir())
	wants(t, stderr, "short", "json")
}

func problemOf(text, hint string) *proxyStatus {
	return &proxyStatus{Problems: []*problem.Problem{{Text: text, Hint: hint}}}
}
