package main

import (
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig"
)

func TestShortStatusIsThreeLinesWhateverIsAmiss(t *testing.T) {
	docker := hostconfig.State{Engine: "docker", Present: true, Mirror: "hosts.toml", Files: []string{"/d1", "/d2"}}
	containerd := hostconfig.State{Engine: "containerd", Present: true, Mirror: "hosts.toml", Files: []string{"/c1"}}
	deaf := hostconfig.State{Engine: "containerd", Present: true, Mirror: "mirror inactive for CRI", Files: []string{"/c1"},
		Notes: []string{"mirror inactive for CRI, because config_path is empty; to mend it: sidemirror apply --restart-containerd (containers go on running)"}}
	late := deaf
	late.Notes = []string{"mirror inactive for CRI, because config_path was set after containerd was started; to mend it: systemctl restart containerd (containers go on running)"}
	barred := deaf
	barred.Notes = []string{"mirror inactive for CRI: /etc/containerd/config.toml:3 has registry.mirrors"}
	k3s := containerd
	k3s.Home, k3s.Files = "k3s", []string{"/k1"}
	states := func(s ...hostconfig.State) []hostconfig.State { return s }
	for name, test := range map[string]struct {
		s     status
		first string
		amiss string // the second line; empty where there is none
	}{
		"all well": {status{Engines: states(docker, containerd)},
			"docker and containerd pull through sidemirror (3 files)", ""},
		"three engines": {status{Engines: states(docker, containerd, k3s)},
			"docker, containerd and containerd of k3s pull through sidemirror (4 files)", ""},
		"no engine": {status{Engines: states(hostconfig.State{Engine: "docker"}, hostconfig.State{Engine: "containerd"})},
			"no container engine is on this host; one that comes later is configured by itself", ""},
		"containerd takes a restart": {status{Engines: states(docker, deaf)},
			"docker pulls through sidemirror (2 files)", "containerd: needs a restart for Kubernetes (CRI): sidemirror apply --restart-containerd"},
		"only containerd, which takes a restart": {status{Engines: states(late)},
			"no container engine pulls through sidemirror yet; 1 file prepared for it",
			"containerd: needs a restart for Kubernetes (CRI): systemctl restart containerd"},
		"containerd refuses": {status{Engines: states(docker, barred)},
			"docker pulls through sidemirror (2 files)", "containerd: does not use it for Kubernetes (CRI), and why: sidemirror status"},
		"nothing written yet": {status{Engines: states(docker), Pending: []string{"/d1", "/d2"}, Signals: []string{"reload docker"}},
			"no container engine pulls through sidemirror yet", "2 files still to be changed: sidemirror apply"},
		"a file refused": {status{Engines: states(docker), Refused: []string{"/x: is immutable"}},
			"docker pulls through sidemirror (2 files)", "1 file cannot be changed, and why: sidemirror status"},
		"a file of an engine's refused": {status{Engines: states(docker, containerd), Refused: []string{"/d2: is immutable"}},
			"containerd pulls through sidemirror (1 file)", "1 file cannot be changed, and why: sidemirror status"},
		"docker not told": {status{Engines: states(docker), Signals: []string{"reload docker"}},
			"docker pulls through sidemirror (2 files)", "docker: needs a reload: sidemirror apply"},
		"proxy down, and more": {status{Engines: states(docker, deaf), Proxy: problemOf("sidemirror does not respond", "systemctl status sidemirror"), Refused: []string{"/x", "/y"}},
			"docker pulls through sidemirror (2 files)",
			"sidemirror does not respond: systemctl status sidemirror (and 2 more: sidemirror status)"},
		"proxy with a problem": {status{Engines: states(docker), Proxy: problemOf("nothing new is kept: the disk is full", "")},
			"docker pulls through sidemirror (2 files)", "nothing new is kept: the disk is full"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if err := test.s.writeShort(&out, "apt remove sidemirror"); err != nil {
				t.Fatal(err)
			}
			want := "sidemirror: " + test.first + "\n"
			if test.amiss != "" {
				want += "sidemirror: " + test.amiss + "\n"
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
		out, _ := command(t, 0, "status", "--short", "--root", root)
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
	return &proxyStatus{Problems: []problemShown{{Text: text, Hint: hint}}}
}
