package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/proxycheck"
	"github.com/sidemirror/sidemirror/daemon/state"
	"github.com/sidemirror/sidemirror/internal/problem"
)

func loaded(t *testing.T, text string) *config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The command is run as it is printed, without sudo.
func TestTheCommandThatStatusPrintsTrustsTheCaller(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		config string
		caller state.Refused
		units  []string
		uids   []uint32
	}{
		"a unit":            {"", state.Refused{UserTrusted: true, Group: "/system.slice/ci.service"}, []string{"default", "ci.service"}, []uint32{0}},
		"no newline at end": {"[log]\nlevel = \"info\"", state.Refused{UserTrusted: true, Group: "/a.slice/ci@1.service"}, []string{"default", "ci@1.service"}, []uint32{0}},
		"a comment":         {"#[trust]\n", state.Refused{UserTrusted: true, Group: "/ci.scope"}, []string{"default", "ci.scope"}, []uint32{0}},
		"no unit":           {"", state.Refused{UserTrusted: true, Group: "/system.slice/ci.service/x"}, []string{"default", "/system.slice/ci.service/x"}, []uint32{0}},
		"a user":            {"", state.Refused{UID: 1000, Group: "/user.slice/user-1000.slice/session-1.scope"}, []string{"default"}, []uint32{0, 1000}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := loaded(t, test.config)
			_, command, found := strings.Cut(trustHint(test.caller, c), "to trust it: ")
			if !found {
				t.Fatalf("no command in %q", trustHint(test.caller, c))
			}
			if out, err := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(command, "sudo ", "", 1)).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", command, err, out)
			}
			after, err := config.Load(c.File, nil)
			if err != nil {
				t.Fatalf("%s: %v", command, err)
			}
			if !slices.Equal(after.Trust.Units, test.units) || !slices.Equal(after.Trust.UIDs, test.uids) {
				t.Errorf("%s: units %q, users %v", command, after.Trust.Units, after.Trust.UIDs)
			}
		})
	}
}

func TestStatusNamesTheSettingIfTheFileHasTheTable(t *testing.T) {
	t.Parallel()
	unit := state.Refused{UserTrusted: true, Group: "/system.slice/ci.service"}
	for _, text := range []string{"[trust]\nuids = [0]\n", " [ trust ]\nunits = [\"x.service\"]\n", "trust.uids = [0]\n"} {
		c := loaded(t, text)
		got := trustHint(unit, c)
		if strings.Contains(got, "printf") || !strings.Contains(got, `"ci.service"]`) || !strings.Contains(got, c.File) {
			t.Errorf("%q: %q", text, got)
		}
	}
	escaped := state.Refused{UserTrusted: true, Group: `/system.slice/ci\x2done.service`}
	if got := trustHint(escaped, loaded(t, "")); strings.Contains(got, "printf") || !strings.Contains(got, `"ci\\x2done.service"`) {
		t.Errorf("a name with a backslash: %q", got)
	}
}

func TestStatusSuggestsNothingForWhatCannotBeTrusted(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]state.Refused{
		"a container":           {UserTrusted: true, Container: true, Group: "/system.slice/docker-ab.scope"},
		"an unknown group":      {UserTrusted: true},
		"a name with quotes":    {UserTrusted: true, Group: `/x'; reboot; '.service`},
		"a name with a newline": {UserTrusted: true, Group: "/x\n.service"},
	} {
		if got := trustHint(r, loaded(t, "")); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestStatusListsRefusedCallersAndTheDaemonsProblems(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := &status{Proxy: &proxyStatus{Answers: true}, OK: true}
	daemon := state.State{
		Notes: []*problem.Problem{{Code: "note", Text: "worth knowing"}},
		Refused: []state.Refused{
			{UserTrusted: true, Group: "/system.slice/ci.service", Requests: 12, Last: now.Add(-3 * time.Minute)},
			{UserTrusted: true, Container: true, Group: "/system.slice/docker-ab.scope\x1b[2J", Requests: 1, Last: now},
			{UserTrusted: true, Requests: 1, Last: now},
		},
	}
	s.addState(daemon, loaded(t, ""))
	if !s.OK {
		t.Error("refused callers count as a problem")
	}
	var out bytes.Buffer
	p := newPrinter(&out)
	p.notes(nil, s.Notes...)
	p.refusedCallers(s.RefusedCallers, now)
	for _, want := range []string{
		"worth knowing", `user "root" in /system.slice/ci.service: 12 requests, last 3 minutes ago`, `"ci.service"]`,
		"in a container, /system.slice/docker-ab.scope", "in a control group that is gone or cannot be seen: 1 request, last just now",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("a control character is printed")
	}
	s.addProxy(proxycheck.Report{}.Detailed([]*problem.Problem{{Code: "x", Text: "wrong"}}))
	if s.OK || len(s.problems()) != 1 {
		t.Errorf("the daemon's problem is not one of the host's: %+v", s.problems())
	}
}
