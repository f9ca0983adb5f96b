package hostconfig

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/ownunit"
)

const (
	ownService = "/usr/lib/systemd/system/sidemirror.service"
	serviceD   = "/etc/systemd/system/sidemirror.service.d"
	anyServer  = "/etc/resolv.conf"
	authFile   = "/etc/sidemirror/auth.json"
)

// installed are the files of a host that has sidemirror's unit, and some more.
func installed(more map[string]string) map[string]string {
	files := map[string]string{ownService: "[Service]\nExecStart=/usr/bin/sidemirror serve\n", "/etc/systemd/system/": ""}
	for name, text := range more {
		files[name] = text
	}
	return files
}

func TestTheServiceMayReachLinkLocalAddressesIfAndOnlyIfSomethingNeedsThem(t *testing.T) {
	t.Parallel()
	const metadata, google = "IPAddressAllow=169.254.169.254 169.254.170.2 169.254.170.23\n", "IPAddressAllow=169.254.169.254\n"
	for name, tt := range map[string]struct {
		files map[string]string
		want  engine.Desired
		has   []string // the drop-in; none if there must be none
	}{
		"nothing":                      {installed(nil), engine.Desired{Service: true}, nil},
		"a helper":                     {installed(nil), engine.Desired{Service: true, Helpers: true}, []string{metadata}},
		"a name server":                {installed(map[string]string{anyServer: "nameserver 169.254.169.254\n"}), engine.Desired{Service: true}, []string{google}},
		"an IPv6 name server":          {installed(map[string]string{anyServer: "nameserver fe80::1%eth0\n"}), engine.Desired{Service: true}, []string{"IPAddressAllow=fe80::1\n"}},
		"both":                         {installed(map[string]string{anyServer: "nameserver 169.254.1.1\n"}), engine.Desired{Service: true, Helpers: true}, []string{metadata, "=169.254.1.1\n"}},
		"another name server":          {installed(map[string]string{anyServer: "nameserver 10.0.0.2\n"}), engine.Desired{Service: true}, nil},
		"a file that names helpers":    {installed(map[string]string{authFile: `{"credHelpers":{"gcr.io":"gcr"}}`}), engine.Desired{Service: true, CredentialFiles: []string{authFile}}, []string{metadata}},
		"a file that names a store":    {installed(map[string]string{authFile: `{"credsStore":"pass"}`}), engine.Desired{Service: true, CredentialFiles: []string{authFile}}, []string{metadata}},
		"a file without helpers":       {installed(map[string]string{authFile: `{"auths":{}}`}), engine.Desired{Service: true, CredentialFiles: []string{authFile}}, nil},
		"half a file":                  {installed(map[string]string{authFile: `{"credsStore":"pa`}), engine.Desired{Service: true, CredentialFiles: []string{authFile}}, nil},
		"a file that is not there":     {installed(nil), engine.Desired{Service: true, CredentialFiles: []string{authFile}}, nil},
		"a host without the unit":      {map[string]string{"/etc/": ""}, engine.Desired{Service: true, Helpers: true}, nil},
		"only some engines, by a flag": {installed(nil), engine.Desired{Helpers: true, Leave: []string{engine.Sidemirror}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := host(t, tt.files)
			before := h.snapshot(t)
			tt.want.Mirror, tt.want.Engines = ourURL, []string{engine.Docker}
			do(t, h, tt.want)
			if (len(tt.has) > 0) != h.exists(ownunit.File) {
				t.Fatalf("there is a drop-in: %v", h.exists(ownunit.File))
			}
			for _, line := range tt.has {
				if text := h.get(t, ownunit.File); !strings.Contains(text, line) || strings.Count(text, "IPAddressAllow=") != len(tt.has) {
					t.Errorf("no %q in\n%s", line, text)
				}
			}
			if plan, err := Make(t.Context(), h, tt.want); err != nil || len(plan.Changes) != 0 {
				t.Errorf("not settled: %+v, %v", plan.Changes, err)
			}
			if _, err := Revert(t.Context(), h, ourURL); err != nil {
				t.Fatal(err)
			}
			sameTree(t, before, h.snapshot(t))
		})
	}
}

func (h *Host) exists(name string) bool {
	_, err := os.Lstat(h.path(name))
	return err == nil
}

func TestTheDropInGoesWhenNothingNeedsItAnyMore(t *testing.T) {
	t.Parallel()
	h := host(t, installed(map[string]string{serviceD + "/override.conf": "[Service]\nMemoryMax=1G\n"}))
	before := h.snapshot(t)
	want := engine.Desired{Mirror: ourURL, Engines: []string{engine.Docker}, Service: true, Helpers: true}
	do(t, h, want)
	if !h.exists(ownunit.File) {
		t.Fatal("no drop-in")
	}
	left := want
	left.Service, left.Leave = false, []string{engine.Sidemirror}
	do(t, h, left)
	if !h.exists(ownunit.File) {
		t.Error("a run for some engines alone removes it")
	}
	want.Helpers = false
	do(t, h, want)
	if h.exists(ownunit.File) {
		t.Error("it stays")
	}
	sameTree(t, before, h.snapshot(t))
}

func TestTheServiceMayListenOnTheBridgesOfGuestsIfTheyAreServed(t *testing.T) {
	t.Parallel()
	h := host(t, installed(nil))
	before := h.snapshot(t)
	want := engine.Desired{Mirror: ourURL, Engines: []string{engine.Docker}, Service: true, GuestPort: true}
	do(t, h, want)
	text := h.get(t, ownunit.GuestsFile)
	for _, line := range []string{"\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\n", "\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
	if h.exists(ownunit.File) {
		t.Error("the service may reach link-local addresses too")
	}
	if plan, err := Make(t.Context(), h, want); err != nil || len(plan.Changes) != 0 {
		t.Errorf("not settled: %+v, %v", plan.Changes, err)
	}
	want.GuestPort = false
	do(t, h, want)
	sameTree(t, before, h.snapshot(t))
}

// The watcher cannot look into homes: what a person has applied stays.
func TestTheDropInStaysIfTheFileThatNamesHelpersCannotBeSeen(t *testing.T) {
	t.Parallel()
	h := host(t, installed(map[string]string{authFile: `{"credsStore":"pass"}`}))
	want := engine.Desired{Mirror: ourURL, Engines: []string{engine.Docker}, Service: true, CredentialFiles: []string{authFile}}
	do(t, h, want)
	if err := os.Remove(h.path(authFile)); err != nil {
		t.Fatal(err)
	}
	if plan, err := Make(t.Context(), h, want); err != nil || len(plan.Changes) != 0 {
		t.Errorf("the plan changes %+v, %v", plan.Changes, err)
	}
	h.put(t, authFile, `{}`)
	do(t, h, want)
	if h.exists(ownunit.File) {
		t.Error("it stays though the file names no helper any more")
	}
}

func TestTheDropInIsTakenOutWithoutAJournal(t *testing.T) {
	t.Parallel()
	h := host(t, installed(nil))
	do(t, h, engine.Desired{Mirror: ourURL, Engines: []string{engine.Docker}, Service: true, Helpers: true})
	if err := os.RemoveAll(h.path("/var/lib/sidemirror-hosts")); err != nil {
		t.Fatal(err)
	}
	if _, err := Revert(t.Context(), h, ourURL); err != nil {
		t.Fatal(err)
	}
	if h.exists(ownunit.File) {
		t.Error("it stays")
	}
}

func TestAForeignFileOfThatNameIsNotLost(t *testing.T) {
	t.Parallel()
	const foreign = "[Service]\nIPAddressAllow=10.0.0.1\n"
	h := host(t, installed(map[string]string{ownunit.File: foreign}))
	before := h.snapshot(t)
	want := engine.Desired{Mirror: ourURL, Engines: []string{engine.Docker}, Service: true, Helpers: true}
	do(t, h, want)
	if text := h.get(t, ownunit.File); !strings.HasSuffix(text, foreign) || !strings.Contains(text, "169.254.169.254") {
		t.Errorf("%s", text)
	}
	if _, err := Revert(t.Context(), h, ourURL); err != nil {
		t.Fatal(err)
	}
	sameTree(t, before, h.snapshot(t))
}

// serviceManager is a host on which systemd runs, and no engine.
type serviceManager struct {
	*fakeRunning
	live.Units
	outdated     bool
	reconfigured []string
	fails        error
}

func (s *serviceManager) Daemon(_ context.Context, name string) live.Daemon {
	if name == engine.Sidemirror {
		return ownunit.Connect(s)
	}
	return nil
}

func (s *serviceManager) Outdated(context.Context, string) (bool, error) { return s.outdated, nil }
func (s *serviceManager) Reconfigure(_ context.Context, unit string) error {
	s.reconfigured = append(s.reconfigured, unit)
	return s.fails
}

func TestSystemdIsMadeToReadTheDropIn(t *testing.T) {
	t.Parallel()
	h := host(t, installed(nil))
	s := &serviceManager{fakeRunning: idle(h)}
	h.Running = s
	want := engine.Desired{Mirror: ourURL, Engines: []string{engine.Docker}, Service: true, Helpers: true}
	signal := live.Signal{Engine: engine.Sidemirror, Verb: live.Reload}
	plan, err := Make(t.Context(), h, want)
	if err != nil || !slices.Contains(plan.Signals(), signal) {
		t.Fatalf("the plan announces %v, %v", plan.Signals(), err)
	}
	result, err := Apply(t.Context(), h, plan)
	if err != nil || !slices.Equal(result.Signals, []live.Signal{signal}) || !slices.Equal(s.reconfigured, []string{"sidemirror.service"}) {
		t.Errorf("signals %v, reconfigured %q, %v", result.Signals, s.reconfigured, err)
	}

	// A run was killed before it could do so.
	s.outdated = true
	if plan, err = Make(t.Context(), h, want); err != nil || len(plan.Changes) != 0 || !slices.Equal(plan.Signals(), []live.Signal{signal}) {
		t.Errorf("after a kill: %+v, %v, %v", plan.Changes, plan.Signals(), err)
	}
	if _, err := Apply(t.Context(), h, plan); err != nil || len(s.reconfigured) != 2 {
		t.Errorf("reconfigured %q, %v", s.reconfigured, err)
	}
	s.outdated = false

	s.fails = errors.New("no bus")
	if _, err := Revert(t.Context(), h, ourURL); err == nil || !strings.Contains(err.Error(), "no bus") || len(s.reconfigured) != 3 {
		t.Errorf("reconfigured %q, %v", s.reconfigured, err)
	}
	if h.exists(ownunit.File) {
		t.Error("the drop-in stays because systemd cannot be reached")
	}
}
