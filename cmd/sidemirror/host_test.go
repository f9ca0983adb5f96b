package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree is a host's tree with files by their paths.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// command runs the command line and wants an exit code.
func command(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if got := run(context.Background(), args, strings.NewReader(""), &out, &errs); got != code {
		t.Errorf("%q: exit %d, want %d\n%s%s", args, got, code, &out, &errs)
	}
	return out.String(), errs.String()
}

func wants(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in:\n%s", part, text)
		}
	}
}

func TestPlanShowsWhatApplyDoesAndRevertUndoes(t *testing.T) {
	const daemonJSON = "{\n\t\"debug\": true\n}\n"
	root := tree(t, map[string]string{
		"etc/docker/daemon.json":          daemonJSON,
		"etc/sidemirror/config.toml":      "listen = [\"192.0.2.1:80\", \"127.0.0.1:6000\"]\n",
		"etc/containerd/\x1b[31m.ignored": "",
	})
	out, _ := command(t, exitUsage, "plan", "--root", root)
	wants(t, out, "+++ /etc/docker/daemon.json\n", "@@ -1,3 +1,4 @@\n {\n-\t\"debug\": true\n+\t\"debug\": true,\n+\t\"registry-mirrors\": [\"http://127.0.0.1:6000\"]\n }\n",
		"--- /dev/null\n+++ /etc/containerd/certs.d/docker.io/hosts.toml\n@@ -0,0 +1,3 @@\n")
	if strings.Contains(out, "\x1b") || strings.Contains(out, "then:") {
		t.Errorf("colour without a terminal, or a signal under --root:\n%s", out)
	}
	out, _ = command(t, 0, "apply", "--root", root)
	wants(t, out, "wrote      /etc/docker/daemon.json\n", "to undo    sidemirror revert --root "+root+"\n")
	out, _ = command(t, 0, "plan", "--root", root)
	wants(t, out, "nothing to do\n")
	out, _ = command(t, 0, "apply", "--root", root)
	wants(t, out, "nothing to do\n")
	out, _ = command(t, 0, "revert", "--root", root)
	wants(t, out, "restored   /etc/docker/daemon.json\n")
	if got, err := os.ReadFile(filepath.Join(root, "etc/docker/daemon.json")); err != nil || string(got) != daemonJSON {
		t.Errorf("daemon.json is %q, %v", got, err)
	}
	out, _ = command(t, 0, "revert", "--root", root)
	wants(t, out, "nothing to restore\n")
}

func TestOneRefusedFileIsNamedAndTheOthersAreWritten(t *testing.T) {
	root := tree(t, map[string]string{"etc/docker/daemon.json": "{\n// mine\n}", "etc/containerd/x": ""})
	_, errs := command(t, exitFailed, "apply", "--root", root)
	wants(t, errs, "/etc/docker/daemon.json:2: not valid JSON")
	if _, err := os.Stat(filepath.Join(root, "etc/containerd/certs.d/docker.io/hosts.toml")); err != nil {
		t.Error(err)
	}
	command(t, 0, "plan", "--root", root, "--engine", "containerd")
	out, _ := command(t, exitFailed, "plan", "--root", root)
	wants(t, out, "problem: docker: /etc/docker/daemon.json:2:")
}

func TestPlanJSON(t *testing.T) {
	root := tree(t, map[string]string{"etc/docker/daemon.json": "{}"})
	out, _ := command(t, exitUsage, "plan", "--root", root, "--json")
	var plan struct {
		Changes []struct {
			Path          string
			Before, After *string
		}
		Refused []string
	}
	if err := json.Unmarshal([]byte(out), &plan); err != nil {
		t.Fatal(err)
	}
	last := plan.Changes[len(plan.Changes)-1]
	if plan.Changes[0].Before != nil || last.Path != "/etc/docker/daemon.json" || *last.Before != "{}" || last.After == nil {
		t.Errorf("%s", out)
	}
}

func TestRevertNeedsNoConfiguration(t *testing.T) {
	root := tree(t, map[string]string{"etc/docker/daemon.json": "{}"})
	command(t, 0, "apply", "--root", root)
	if err := os.MkdirAll(filepath.Join(root, "etc/sidemirror"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/sidemirror/config.toml"), []byte("listen = ["), 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, exitFailed, "plan", "--root", root)
	command(t, 0, "revert", "--root", root)
	if got, err := os.ReadFile(filepath.Join(root, "etc/docker/daemon.json")); err != nil || string(got) != "{}" {
		t.Errorf("daemon.json is %q, %v", got, err)
	}
}

func TestEnginesByName(t *testing.T) {
	root := tree(t, map[string]string{"etc/hostname": ""})
	out, _ := command(t, 0, "apply", "--root", root)
	wants(t, out, "no engine found")
	command(t, 0, "apply", "--root", root, "--engine", "containerd")
	if _, err := os.Stat(filepath.Join(root, "etc/docker")); err == nil {
		t.Error("Docker was configured too")
	}
	_, errs := command(t, exitUsage, "apply", "--root", root, "--engine", "kaniko")
	wants(t, errs, "not \"kaniko\"")
}

func TestWhatOneApplyWasAskedForIsLeftByTheNext(t *testing.T) {
	const config = "version = 2\n"
	root := tree(t, map[string]string{
		"etc/containerd/config.toml": config, "etc/docker/daemon.json": "{}",
		"var/lib/dpkg/status": "Package: containerd\nStatus: install ok installed\nVersion: 1.6.20~ds1-1\n",
	})
	read := func() string {
		data, err := os.ReadFile(filepath.Join(root, "etc/containerd/config.toml"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	command(t, 0, "apply", "--root", root, "--engine", "docker")
	if read() != config {
		t.Error("containerd was configured too")
	}
	command(t, 0, "apply", "--root", root, "--engine", "containerd", "--restart-containerd")
	with := read()
	wants(t, with, "config_path = \"/etc/containerd/certs.d\"\n")
	for _, args := range [][]string{{"plan"}, {"plan", "--restart-containerd"}, {"apply"}, {"plan", "--engine", "docker"}, {"plan", "--engine", "containerd"}} {
		out, _ := command(t, 0, append(args, "--root", root)...)
		wants(t, out, "nothing to do\n")
		if strings.Contains(out, "inactive") || read() != with {
			t.Errorf("%q: %s%s", args, out, read())
		}
	}
	out, _ := command(t, 0, "revert", "--root", root)
	wants(t, out, "restored   /etc/containerd/config.toml\n", "restored   /etc/docker/daemon.json\n")
	if read() != config {
		t.Errorf("config.toml is %q", read())
	}
}

func TestWithoutALoopbackAddressEnginesCannotReachUs(t *testing.T) {
	root := tree(t, map[string]string{"etc/docker/x": "", "etc/sidemirror/config.toml": "listen = [\"192.0.2.1:80\"]\n"})
	_, errs := command(t, exitUsage, "apply", "--root", root)
	wants(t, errs, "no loopback address")
}

func TestDiffOfHostileTextCannotDriveTheTerminal(t *testing.T) {
	var out bytes.Buffer
	p := &printer{w: &out, color: true}
	p.diff("/a\nb", []byte("x\x1b]0;title\x07\r\n"), []byte("y"))
	wants(t, out.String(), `/a\u000ab`, `x\u001b]0;title\u0007\u000d`, "\\ No newline at end of file\n", "\x1b[31m-x", "\x1b[32m+y")
}
