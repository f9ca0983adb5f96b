package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/proxycheck"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
)

func TestStatusSaysWhatIsMissingAndWhatIsRefused(t *testing.T) {
	root := tree(t, map[string]string{"etc/docker/daemon.json": "{\n//\n}", "etc/containerd/config.toml": "version = 2\n"})
	out, _ := command(t, 0, "status", "--root", root)
	wants(t, out, "/etc/containerd/certs.d/docker.io/hosts.toml  missing\n", "problem: /etc/docker/daemon.json:2:", "sidemirror apply",
		"CRI does not read hosts.toml files: config_path is empty")
	if strings.Contains(out, "proxy") {
		t.Errorf("another host's proxy cannot be asked:\n%s", out)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/docker/daemon.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, 0, "apply", "--root", root, "--restart-containerd")
	out, _ = command(t, 0, "status", "--root", root)
	wants(t, out, "\n            /etc/containerd/certs.d/docker.io/hosts.toml\n", "all is as planned\n")
}

func TestStatusJSON(t *testing.T) {
	root := tree(t, map[string]string{"etc/docker/x": ""})
	read := func() (s status) {
		t.Helper()
		out, _ := command(t, 0, "status", "--root", root, "--json")
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := read(); s.OK || len(s.Pending) != 5 || s.Engines[0].Engine != "docker" || s.Refused == nil || s.Signals == nil {
		t.Errorf("%+v", s)
	}
	command(t, 0, "apply", "--root", root)
	if s := read(); !s.OK || len(s.Pending) != 0 || len(s.Engines[0].Files) != 5 {
		t.Errorf("%+v", s)
	}
}

func TestStatusShowsTheProblemsOfTheProxyWithTheirHints(t *testing.T) {
	s := &status{Proxy: newProxyStatus(proxycheck.Report{
		Address:  "http://127.0.0.1:305",
		Answers:  true,
		Problems: []*problem.Problem{{Code: "proxy-reports-problem", Text: "the disk is full", Hint: "journalctl -u sidemirror"}},
	})}
	if s.judge(); s.OK {
		t.Error("a problem is no problem")
	}
	var out strings.Builder
	if err := s.write(&out); err != nil {
		t.Fatal(err)
	}
	wants(t, out.String(), "answers at http://127.0.0.1:305\n", "the disk is full\n", "journalctl -u sidemirror\n")
	s = &status{Proxy: newProxyStatus(proxycheck.Report{Address: "http://127.0.0.1:305", Answers: true})}
	if s.judge(); !s.OK {
		t.Error("there is no problem, but it is not OK")
	}
}

func TestStatusOfANameThatWouldDriveTheTerminal(t *testing.T) {
	var out strings.Builder
	p := &printer{w: &out}
	p.file(engine.File{Path: "/a\x1b[31m\nb", State: engine.Missing})
	wants(t, out.String(), `/a\u001b[31m\u000ab  missing`)
}
