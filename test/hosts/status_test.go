package hosts_test

import (
	"encoding/json"
	"slices"
	"testing"
)

// status is what `sidemirror status --json` prints, as far as these tests look at it.
type status struct {
	OK      bool
	Engines []state
	Pending []string
	Signals []struct{ Engine, Verb string }
	Refused []remark
}

// state is what it prints of one engine.
type state struct {
	Engine, Home, Version, Store, Config, Hosts, Mirror string

	Running         bool
	Through         []string
	Files           []struct{ Path, State string }
	Problems, Notes []remark
}

// remark is a problem or a note.
type remark struct{ Code, Path, Text, Hint string }

func (r *rig) status(t *testing.T) status {
	t.Helper()
	out, _, code := r.run(t, "status", "--json")
	var s status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	if s.OK != (code == 0) {
		t.Errorf("status: exit code %d, and ok is %v", code, s.OK)
	}
	return s
}

// engine is what the status says of one engine.
func (s status) engine(t *testing.T, name string) state {
	t.Helper()
	i := slices.IndexFunc(s.Engines, func(e state) bool { return e.Engine == name && e.Home == "" })
	if i < 0 || !s.Engines[i].Running {
		t.Fatalf("the status knows no %s that runs: %+v", name, s.Engines)
	}
	return s.Engines[i]
}

// tellsCRI checks that the status says of containerd's CRI what its pulls do.
func (r *rig) tellsCRI(t *testing.T, way by) {
	t.Helper()
	s := r.status(t)
	told := s.engine(t, "containerd")
	// Partial is a host on which a file is not in place yet.
	if reaches := told.Mirror == "active" || told.Mirror == "partial"; reaches != (way == viaSidemirror) {
		t.Errorf("CRI pulls %s, and the status says %+v", way, told)
	}
	if way == direct && len(told.Problems)+len(s.Refused) == 0 {
		t.Errorf("CRI pulls %s, and the status names no problem: %+v", way, told)
	}
}

// tellsDocker checks that the status says of Docker what its pulls from Docker Hub and from
// another registry do.
func (r *rig) tellsDocker(t *testing.T, hub, other by) {
	t.Helper()
	told := r.status(t).engine(t, "docker")
	want := []string{"inactive", "partial"} // further registries can be mirrored
	switch {
	case hub == viaSidemirror && other == viaSidemirror:
		want = []string{"active"}
	case hub == viaSidemirror || other == viaSidemirror:
		want = []string{"partial"}
	}
	if !slices.Contains(want, told.Mirror) {
		t.Errorf("Docker pulls from Docker Hub %s and from reg.test %s, and the status says %+v", hub, other, told)
	}
	if told.Mirror != "active" && len(told.Problems)+len(told.Notes) == 0 {
		t.Errorf("Docker pulls from Docker Hub %s and from reg.test %s, and the status does not say why: %+v", hub, other, told)
	}
}
