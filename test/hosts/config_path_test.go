package hosts_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/engine"
)

// old are the generations whose containerd is 1.x.
var old = []engine.Generation{engine.Bookworm, engine.Trixie}

const cri1 = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry"

// What containerd 1.x refuses next to config_path (pkg/cri/config, ValidatePluginConfig)
// must keep sidemirror from setting it: containerd would start without CRI.
func TestConfigPathIsNotSetNextToWhatContainerd1Refuses(t *testing.T) {
	engine.NeedRoot(t)
	each(t, old, func(t *testing.T, g engine.Generation) {
		r := newRig(t, rigOptions{generation: g})
		for _, c := range []struct {
			name  string
			files map[string]string
			names string // the file and line that the refusal names; empty if it is no reason to refuse
		}{
			{name: "tls of a registry", files: map[string]string{config: cri1 + ".configs.\"reg.test\".tls]\n  insecure_skip_verify = true\n"}, names: config + ":2"},
			{name: "empty tls", files: map[string]string{config: cri1 + ".configs.\"reg.test\".tls]\n"}, names: config + ":2"},
			{name: "inline tls", files: map[string]string{config: cri1 + "]\n  config_path = \"\"\n  configs = { \"reg.test\" = { tls = { ca_file = \"/etc/ssl/certs/ca-certificates.crt\" } } }\n"}, names: config + ":4"},
			{name: "dotted tls", files: map[string]string{config: cri1 + ".configs.\"reg.test\"]\n  tls.insecure_skip_verify = true\n"}, names: config + ":3"},
			{name: "imported tls", files: map[string]string{
				config:                      "version = 2\nimports = [\"/etc/containerd/more.toml\"]\n",
				"/etc/containerd/more.toml": cri1 + ".configs.\"reg.test\".tls]\n  insecure_skip_verify = true\n",
			}, names: "/etc/containerd/more.toml:2"},
			{name: "mirrors", files: map[string]string{config: cri1 + ".mirrors.\"other.test\"]\nendpoint = [\"https://reg.test\"]\n"}, names: config + ":2"},
			{name: "login of a registry", files: map[string]string{config: cri1 + ".configs.\"other.test\".auth]\n  username = \"alice\"\n"}},
			{name: "login in the old form", files: map[string]string{config: cri1 + ".auths.\"https://other.test\"]\n  username = \"alice\"\n"}},
			{name: "headers", files: map[string]string{config: cri1 + ".headers]\n  x-a = [\"b\"]\n"}},
			{name: "no version", files: map[string]string{config: "disabled_plugins = []\n"}},
			{name: "comments", files: map[string]string{config: "# disabled_plugins = []\n"}},
			{name: "version 1 with CRI", files: map[string]string{config: "[plugins.cri]\n  sandbox_image = \"reg.test/pause:3\"\n"}},
		} {
			t.Run(c.name, func(t *testing.T) {
				r.put(t, c.files)
				r.host.StartContainerd(t)
				if way := r.byCRI(t, otherName); way != direct {
					t.Fatalf("before apply CRI pulls %s", way)
				}
				first := r.takeTree(t)
				stdout, stderr, code := r.run(t, "apply", "--engine", "containerd", "--restart-containerd")
				want := viaSidemirror
				if c.names != "" {
					want = direct
					if out := stdout + stderr; !strings.Contains(out, c.names) {
						t.Errorf("apply --restart-containerd does not name %s:\n%s", c.names, out)
					}
				}
				t.Logf("exit code %d\n%s%s", code, stdout, stderr)
				r.host.StartContainerd(t) // as systemd would
				if way := r.byCRI(t, otherName); way != want {
					t.Errorf("after apply --restart-containerd and a restart CRI pulls %s, want %s", way, want)
				}
				if c.name == "version 1 with CRI" {
					r.checkKept(t, []string{"reg.test/pause:3"})
				}
				r.do(t, 0, "revert")
				r.sameTree(t, "after revert", first)
			})
		}
	})
}

const images2 = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n"

// Lists of folders are ignored from 2.1 on by the transfer service, but containerd falls
// back to pulling without it on these conditions (internal/cri/config,
// CheckLocalImagePullConfigs). The status must say what really happens.
var lists = []struct {
	name, config string
	mirrored     bool
}{
	{"list", images2, false},
	{"built-in list", "version = 3\n", false},
	{"use_local_image_pull", images2 + "[plugins.'io.containerd.cri.v1.images']\nuse_local_image_pull = true\n", true},
	{"max_concurrent_downloads 5", images2 + "[plugins.'io.containerd.cri.v1.images']\nmax_concurrent_downloads = 5\n", true},
	{"max_concurrent_downloads 3", images2 + "[plugins.'io.containerd.cri.v1.images']\nmax_concurrent_downloads = 3\n", false},
	{"login of a registry", images2 + "[plugins.'io.containerd.cri.v1.images'.registry.configs.'other.test'.auth]\nusername = 'alice'\n", true},
	{"login in the old form", images2 + "[plugins.'io.containerd.cri.v1.images'.registry.auths.'https://other.test']\nusername = 'alice'\n", true},
	{"disable_snapshot_annotations false", images2 + "[plugins.'io.containerd.cri.v1.images']\ndisable_snapshot_annotations = false\n", true},
	{"disable_snapshot_annotations true", images2 + "[plugins.'io.containerd.cri.v1.images']\ndisable_snapshot_annotations = true\n", false},
	{"image_pull_with_sync_fs", images2 + "[plugins.'io.containerd.cri.v1.images']\nimage_pull_with_sync_fs = true\n", true},
	{"discard_unpacked_layers", images2 + "[plugins.'io.containerd.cri.v1.images']\ndiscard_unpacked_layers = true\n", true},
	{"discard_unpacked_layers false", images2 + "[plugins.'io.containerd.cri.v1.images']\ndiscard_unpacked_layers = false\n", false},
	{"one folder", strings.Replace(images2, ":/etc/docker/certs.d", "", 1), true},
}

func TestTheStatusKnowsWhetherContainerd2ReadsAListOfFolders(t *testing.T) {
	engine.NeedRoot(t)
	each(t, readers, func(t *testing.T, g engine.Generation) {
		r := newRig(t, rigOptions{generation: g})
		for _, c := range lists {
			t.Run(c.name, func(t *testing.T) {
				r.put(t, map[string]string{config: c.config})
				r.host.StartContainerd(t)
				first := r.takeTree(t)
				r.do(t, 0, "apply", "--engine", "containerd")
				want := direct
				if c.mirrored {
					want = viaSidemirror
				}
				for _, name := range []string{hubName, otherName} {
					if way := r.byCRI(t, name); way != want {
						t.Errorf("CRI pulls from %s %s, want %s", name, way, want)
					}
				}
				r.tellsCRI(t, want)
				r.do(t, 0, "revert")
				r.sameTree(t, "after revert", first)
			})
		}
	})
}

// The files can say something else than the running containerd has in force: an admin has
// edited them and not restarted it. containerd 2.4 reports what it has in force (Introspection).
// Of an earlier one it is at least known that the files were changed after its start.
func TestTheStatusIsThatOfTheRunningContainerd(t *testing.T) {
	engine.NeedRoot(t)
	each(t, engine.Generations(), func(t *testing.T, g engine.Generation) {
		r := newRig(t, rigOptions{generation: g})
		for _, c := range []struct {
			name, running, file string
			way                 by
		}{
			{"set after the start", criV2, certsPath, direct},
			{"taken out after the start", certsPath, criV2, viaSidemirror},
			{"another folder after the start", certsPath, strings.Replace(certsPath, "containerd/certs.d", "containerd/other.d", 1), viaSidemirror},
		} {
			t.Run(c.name, func(t *testing.T) {
				r.put(t, map[string]string{config: c.running})
				r.host.StartContainerd(t)
				if c.way == viaSidemirror {
					r.do(t, 0, "apply", "--engine", "containerd")
				}
				if g != engine.Built {
					time.Sleep(2 * time.Second) // the time of a process's start is known to a second
				}
				r.put(t, map[string]string{config: c.file})
				if c.way == direct {
					r.do(t, 0, "apply", "--engine", "containerd")
				}
				if way := r.byCRI(t, hubName); way != c.way {
					t.Errorf("CRI pulls %s, want %s", way, c.way)
				}
				told := r.status(t).engine(t, "containerd")
				if g == engine.Built || told.Mirror != "unknown" || len(told.Problems) == 0 {
					r.tellsCRI(t, c.way)
				}
				r.do(t, 0, "revert")
			})
		}
	})
}

// With registry.mirrors and config_path containerd runs without CRI, and the node is lost
// (containerd#12612). This is why sidemirror then leaves config_path alone.
func TestContainerdWithMirrorsAndAConfigPathHasNoCRI(t *testing.T) {
	engine.NeedRoot(t)
	const both = criV2 + "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n" +
		"[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"other.test\"]\nendpoint = [\"https://reg.test\"]\n"
	for _, g := range engine.Generations() {
		t.Run(string(g), func(t *testing.T) {
			r := newRig(t, rigOptions{generation: g, files: map[string]string{config: both}})
			if err := r.host.PullCRI(t.Context(), otherName+"/alice/image:v1", ""); err == nil || !strings.Contains(err.Error(), "unknown service runtime.v1.ImageService") {
				t.Errorf("pulling by CRI: %v", err)
			}
			before := r.takeTree(t)
			r.do(t, 0, "apply", "--restart-containerd")
			r.do(t, 0, "revert")
			r.sameTree(t, "after revert", before)
		})
	}
}
