package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
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

func TestTheProxyIsToldFromNobodyAndFromSomebodyElse(t *testing.T) {
	page := "<title>sidemirror</title>"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(page)) }))
	if s := probe(t.Context(), server.URL); !s.Answers || s.Error != "" {
		t.Errorf("%+v", s)
	}
	page = "nginx"
	if s := probe(t.Context(), server.URL); s.Answers || !strings.Contains(s.Error, "somebody else") {
		t.Errorf("%+v", s)
	}
	server.Close()
	if s := probe(t.Context(), server.URL); s.Answers || !strings.Contains(s.Error, "start it: sidemirror serve") {
		t.Errorf("%+v", s)
	}
}

func TestWhatTheProxyTellsSystemdIsAmissIsStatusToo(t *testing.T) {
	for line, want := range map[string]string{
		"serving 4 registries on 127.0.0.1:305":                         "",
		"serving 4 registries on 127.0.0.1:305; nothing is kept; and b": "nothing is kept; and b",
		"": "",
	} {
		s := status{Proxy: &proxyStatus{Address: "http://127.0.0.1:305", Answers: true}}
		s.Proxy.ask(t.Context(), func(context.Context) (string, error) { return line, nil })
		s.judge()
		if s.Proxy.Amiss != want || s.OK != (want == "") {
			t.Errorf("%q: %+v, ok %v", line, s.Proxy, s.OK)
		}
		var out strings.Builder
		if err := s.write(&out); err != nil {
			t.Fatal(err)
		}
		wants(t, out.String(), want, "answers at http://127.0.0.1:305\n")
	}
	s := &proxyStatus{Answers: true}
	s.ask(t.Context(), func(context.Context) (string, error) { return "x; y", errors.New("no systemd") })
	if s.Amiss != "" {
		t.Error("an error's text was believed")
	}
}

func TestStatusOfANameThatWouldDriveTheTerminal(t *testing.T) {
	var out strings.Builder
	p := &printer{w: &out}
	p.file(engine.File{Path: "/a\x1b[31m\nb", State: engine.Missing})
	wants(t, out.String(), `/a\u001b[31m\u000ab  missing`)
}
