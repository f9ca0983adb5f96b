package hosts_test

import (
	"encoding/json"
	"slices"
	"testing"
)

// status is what `sidemirror status --json` prints, as far as it is looked at here.
type status struct {
	OK      bool
	Engines []state
	Pending []string
	Signals []struct{ Engine, Verb string }
	Refused []fault
}

// fault is a problem or a note.
type fault struct{ Code, Path, Text, Hint string }

// state is what it prints of one engine.
type state struct {
	Engine, Home, Version, Store, Config, Hosts, Mirror string
	Running                                             bool
	Through                                             []string
	Files                                               []struct{ Path, State string }
	Problems, Notes                                     []fault
}

// reaches reports whether pulls go through sidemirror because of files of a kind.
func (s state) reaches(kind string) bool {
	return slices.Contains(s.Through, kind) && (s.Mirror == "active" || s.Mirror == "partial")
}

func (r *rig) status(t *testing.T) status {
	t.Helper()
	out, _, _ := r.run(t, "status", "--json") // it exits with 1 if there are problems
	var s status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
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
	if active := told.Mirror == "active"; active != (way == viaSidemirror) {
		t.Errorf("CRI pulls %s, and the status says %+v", way, told)
	}
}
