package hostconfig

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
)

// graphDocker is a running Docker 28 with a graph driver, which has both files.
func graphDocker(t *testing.T, daemon string) (*Host, *fakeRunning) {
	files := map[string]string{"/etc/docker/": "", "/usr/bin/dockerd": ""}
	if daemon != "" {
		files[dockerJSON] = daemon
	}
	h := dockerHost(t, "28.5.2", files)
	return h, running(h)
}

// harmless is an error if the running dockerd asks a loopback mirror without a hosts.toml: it does
// not verify TLS to Docker Hub then.
func harmless(h *Host, fake *fakeRunning) error {
	asks := slices.ContainsFunc(fake.mirrors, func(m string) bool { return strings.HasPrefix(m, ourURL) })
	if asks && !fileHas(h, hubHosts, ourTable) {
		return errors.New("dockerd asks a loopback mirror and has no hosts.toml")
	}
	return nil
}

func fileHas(h *Host, name, text string) bool {
	t, err := h.open()
	if err != nil {
		return false
	}
	defer t.Close()
	f, err := t.Read(name)
	return err == nil && strings.Contains(string(f.Data), text)
}

func TestHostsTomlStaysAsLongAsTheRunningDockerdAsksSidemirror(t *testing.T) {
	h, fake := graphDocker(t, "{\n  \"icc\": true\n}\n")
	before := h.snapshot(t)
	h.apply(t, dockerOnly())
	comment := func(text string) string { return strings.Replace(text, "{", "{ // mine", 1) }
	h.put(t, dockerJSON, comment(h.get(t, dockerJSON)))
	h.step = func(string, string) error { return harmless(h, fake) }
	_, err := Revert(context.Background(), h, ourURL)
	if err == nil || !strings.Contains(err.Error(), hubHosts+": stays, because the running dockerd asks sidemirror") {
		t.Errorf("error: %v", err)
	}
	if got, want := h.get(t, dockerJSON), comment("{\n  \"icc\": true\n}\n"); got != want {
		t.Errorf("the entry is still in daemon.json: %s", got)
	}
	contains(t, h.get(t, hubHosts), ourTable)
	// Once dockerd can read the file, it takes an empty list on the way.
	h.put(t, dockerJSON, "{\n  \"icc\": true\n}\n")
	h.revert(t)
	if len(fake.mirrors) != 0 {
		t.Errorf("in force: %q", fake.mirrors)
	}
	after := h.snapshot(t)
	after[dockerJSON] = before[dockerJSON] // the test wrote it
	sameTree(t, before, after)
	if got := h.get(t, dockerJSON); got != "{\n  \"icc\": true\n}\n" {
		t.Errorf("daemon.json is %q", got)
	}
}

func TestACommentKeepsNothingIfDockerdIsStopped(t *testing.T) {
	h, fake := graphDocker(t, "{}")
	h.apply(t, dockerOnly())
	fake.off = true
	h.put(t, dockerJSON, strings.Replace(h.get(t, dockerJSON), "{", "{ // mine\n", 1))
	h.revert(t)
	if got := h.get(t, dockerJSON); strings.Contains(got, ourURL) || !strings.Contains(got, "// mine") {
		t.Errorf("daemon.json is %q", got)
	}
	h.missing(t, dockerHosts)
	h.missing(t, "/var")
}

func TestHostsTomlStaysIfDockerdDoesNotReload(t *testing.T) {
	h, fake := graphDocker(t, `{"icc": true}`)
	before := h.snapshot(t)
	h.apply(t, dockerOnly())
	fake.deaf = errors.New("no such job")
	h.step = func(string, string) error { return harmless(h, fake) }
	if _, err := Revert(context.Background(), h, ourURL); err == nil || !strings.Contains(err.Error(), hubHosts+": stays") {
		t.Errorf("error: %v", err)
	}
	contains(t, h.get(t, hubHosts), ourTable)
	fake.deaf = nil
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

func TestDockerdForgetsSidemirrorBeforeHostsTomlGoes(t *testing.T) {
	for name, daemon := range map[string]string{"no file": "", "no mirrors": "{}", "mirrors": `{"registry-mirrors": ["https://a"]}`} {
		t.Run(name, func(t *testing.T) {
			h, fake := graphDocker(t, daemon)
			before := h.snapshot(t)
			h.apply(t, dockerOnly())
			h.step = func(string, string) error { return harmless(h, fake) }
			h.revert(t)
			h.step = nil
			sameTree(t, before, h.snapshot(t))
			// A dockerd that asks sidemirror although no file says so any more.
			h.apply(t, dockerOnly())
			if daemon == "" {
				h.remove(t, dockerJSON)
			} else {
				h.put(t, dockerJSON, daemon)
			}
			h.step = func(string, string) error { return harmless(h, fake) }
			h.revert(t)
			if slices.Contains(fake.mirrors, ourURL+"/") {
				t.Errorf("in force: %q", fake.mirrors)
			}
			h.missing(t, dockerHosts)
			h.missing(t, "/var")
		})
	}
}

func TestAnEngineWhoseFileCannotBeReadKeepsWhatItHas(t *testing.T) {
	h, _ := graphDocker(t, "{}")
	h.apply(t, dockerOnly())
	h.put(t, dockerJSON, "{ broken")
	before := h.get(t, hubHosts)
	want := dockerOnly()
	want.Registries = append(want.Registries, "more.example")
	plan := h.plan(t, want)
	if len(plan.Changes) != 0 || plan.Engines[0].Mirror != engine.Unknown || len(plan.Refused) != 1 {
		t.Errorf("%+v", plan)
	}
	if _, err := Apply(context.Background(), h, plan); err == nil {
		t.Error("no error")
	}
	if got := h.get(t, hubHosts); got != before {
		t.Errorf("became %s", got)
	}
	h.missing(t, dockerHosts+"/more.example")
}
