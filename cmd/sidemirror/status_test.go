package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/proxycheck"
	"github.com/sidemirror/sidemirror/daemon/state"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
)

func TestStatusSaysWhatIsMissingAndWhatIsRefused(t *testing.T) {
	root := tree(t, map[string]string{"etc/docker/daemon.json": "{\n//\n}", "etc/containerd/config.toml": "version = 2\n"})
	out, _ := command(t, exitFailed, "status", "--root", root)
	wants(t, out, "/etc/containerd/certs.d/docker.io/hosts.toml  missing\n", "problem: docker: /etc/docker/daemon.json:2: not valid JSON", "\nhint: remove the comment", "sidemirror apply",
		"CRI does not read hosts.toml files: config_path is empty")
	if strings.Contains(out, "proxy") {
		t.Errorf("another host's proxy cannot be asked:\n%s", out)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/docker/daemon.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, 0, "apply", "--root", root, "--restart-containerd")
	out, _ = command(t, 0, "status", "--root", root)
	wants(t, out, "\n            /etc/containerd/certs.d/docker.io/hosts.toml\n", "no problems found\n")
}

func TestStatusJSON(t *testing.T) {
	root := tree(t, map[string]string{"etc/docker/x": ""})
	read := func(code int) (s status) {
		t.Helper()
		out, _ := command(t, code, "status", "--root", root, "--json")
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := read(exitFailed); s.OK || len(s.Pending) != 6 || s.Engines[0].Engine != "docker" || s.Refused == nil || s.Signals == nil {
		t.Errorf("%+v", s)
	}
	command(t, 0, "apply", "--root", root)
	if s := read(0); !s.OK || len(s.Pending) != 0 || len(s.Engines[0].Files) != 6 {
		t.Errorf("%+v", s)
	}
}

func TestStatusShowsTheProblemsOfTheProxyWithTheirHints(t *testing.T) {
	s := newStatus(hostconfig.Plan{})
	s.addProxy(proxycheck.Report{
		Address:  "http://127.0.0.1:305",
		Answers:  true,
		Problems: []*problem.Problem{{Code: "proxy-reports-problem", Text: "the disk is full", Hint: "journalctl -u sidemirror"}},
	})
	if s.OK {
		t.Error("OK in spite of a problem")
	}
	var out strings.Builder
	if err := s.write(&out); err != nil {
		t.Fatal(err)
	}
	wants(t, out.String(), "answers at http://127.0.0.1:305\n", "\nproblem: the disk is full\nhint: journalctl -u sidemirror\n")
	s = newStatus(hostconfig.Plan{})
	if s.addProxy(proxycheck.Report{Address: "http://127.0.0.1:305", Answers: true}); !s.OK {
		t.Error("not OK without a problem")
	}
}

// A problem of an engine that the plan refuses too is shown once.
func TestStatusShowsEachProblemOnce(t *testing.T) {
	refused := &problem.Problem{Code: "x", Path: "/f", Line: 3, Text: "is odd", Hint: "look"}
	s := newStatus(hostconfig.Plan{
		Engines: []engine.State{{Engine: "docker", Present: true, Problems: []*problem.Problem{refused}}},
		Refused: []*problem.Problem{refused, {Code: "y", Text: "the port is taken", Hint: "free it"}},
	})
	var out strings.Builder
	if err := s.write(&out); err != nil {
		t.Fatal(err)
	}
	wants(t, out.String(), "\nproblem: docker: /f:3: is odd\nhint: look\nproblem: the port is taken\nhint: free it\n")
	if strings.Count(out.String(), "is odd") != 1 {
		t.Errorf("got:\n%s", out.String())
	}
}

func TestStatusOfANameThatWouldDriveTheTerminal(t *testing.T) {
	var out strings.Builder
	p := &printer{w: &out}
	p.file(engine.File{Path: "/a\x1b[31m\nb", State: engine.Missing})
	wants(t, out.String(), `/a\u001b[31m\u000ab  missing`)
}

func TestStatusSaysHowItIsKnownWhatIsInForce(t *testing.T) {
	for known, want := range map[engine.Known]string{
		engine.KnownByEngine:  "containerd  k3s, 2.2.1, running: mirror active (reported by containerd)\n",
		engine.KnownByProgram: "containerd  k3s, 2.2.1, running: mirror active (by containerd config dump)\n",
		engine.KnownByFiles:   "containerd  k3s, 2.2.1, running: mirror active (read in its files)\n",
		"":                    "containerd  k3s, 2.2.1, running: mirror active\n",
	} {
		var out strings.Builder
		p := &printer{w: &out}
		s := engine.State{Engine: "containerd", Home: "k3s", Version: "2.2.1", Present: true, Running: true, Mirror: engine.Active, Known: known}
		p.state(s)
		if out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
	}
}

func TestStatusOfAFaultyConfigurationUsesTheLastGoodOne(t *testing.T) {
	file := configFile(t, "listen = ['127.0.0.1:306']\n")
	store := config.LastGood(filepath.Join(t.TempDir(), "state"))
	f := &hostFlags{globals: &globals{configPath: file}, root: "/"}
	now, err := f.inForce(t.Context(), store)
	if err != nil || len(now.problems) > 0 || !now.used {
		t.Fatalf("a good one: %+v, %v", now, err)
	}
	if err := store.Save(now.Config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("lisen = []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	now, err = f.inForce(t.Context(), store)
	if err != nil || len(now.problems) != 1 || !now.used || now.Listen[0].Port() != 306 {
		t.Fatalf("a faulty one: %+v, %v", now, err)
	}
	if p := now.problems[0]; p.Code != "configuration-not-in-force" || !strings.Contains(p.Text, `unknown key "lisen"`) || p.Hint == "" {
		t.Errorf("%+v", p)
	}
	now, err = f.inForce(t.Context(), config.LastGood(t.TempDir()))
	if err != nil || len(now.problems) != 1 || now.used || now.Listen[0].Port() != 305 {
		t.Errorf("without an earlier one: %+v, %v", now, err)
	}
}

// What the default configuration would want of a host is nothing that a person asked for.
func TestStatusWithoutAConfigurationShowsOnlyWhatIsThere(t *testing.T) {
	refused := &problem.Problem{Code: "x", Text: "is odd"}
	other := &problem.Problem{Code: "y", Text: "is empty"}
	s := newStatus(onlyWhatIsThere(hostconfig.Plan{
		Engines: []engine.State{{Engine: "docker", Present: true, Mirror: engine.Partial, Problems: []*problem.Problem{refused, other},
			Files: []engine.File{{Path: "/a", State: engine.InPlace}, {Path: "/b", State: engine.Missing}}}},
		Changes: []hostconfig.Change{{Path: "/b"}}, Refused: []*problem.Problem{refused},
	}))
	if len(s.Pending) > 0 || len(s.Refused) > 0 || len(s.Engines[0].Files) != 1 || len(s.Engines[0].Problems) != 1 {
		t.Errorf("%+v", s)
	}
}

func TestStatusShowsUnitsByState(t *testing.T) {
	unit := func(name, active string) proxycheck.Unit { return proxycheck.Unit{Name: name, Active: active} }
	for want, units := range map[string][]proxycheck.Unit{
		"active: sidemirror.socket, sidemirror, sidemirror-hosts": {unit("sidemirror.socket", "active"), unit("sidemirror.service", "active"), unit("sidemirror-hosts.service", "active")},
		"active: sidemirror.socket; inactive: sidemirror-hosts":   {unit("sidemirror.socket", "active"), unit("sidemirror-hosts.service", "inactive")},
	} {
		if got := unitsText(units); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestStatusSaysWhereLoginsComeFrom(t *testing.T) {
	got := loginsText([]state.Login{{Host: "docker.io", Source: "store"}, {Host: "quay.io", Source: "file"}, {Host: "ghcr.io", Source: "store"}})
	if want := "sidemirror login: docker.io, ghcr.io; a file: quay.io"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
