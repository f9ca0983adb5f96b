package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/problem"
)

func example() State {
	return State{
		Problems: []*problem.Problem{{Code: "a", Path: "/etc/x", Line: 3, Text: "wrong", Hint: "chmod <file>"}},
		Notes:    []*problem.Problem{{Code: "b", Text: "note"}},
		Refused: []Refused{
			{UID: 0, Group: "/system.slice/ci.service", UserTrusted: true, Requests: 3, Last: time.Unix(1700000000, 0).UTC()},
			{UID: 1000, Requests: 1, Last: time.Unix(1600000000, 0).UTC()},
		},
	}
}

func asJSON(t *testing.T, s State) string {
	t.Helper()
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestReadReturnsWhatWriteWasGiven(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 2 {
		if err := Write(dir, example()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read(filepath.Join(dir, name))
	if err != nil || asJSON(t, got) != asJSON(t, example()) {
		t.Errorf("%+v, %v", got, err)
	}
	info, err := os.Stat(filepath.Join(dir, name))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestACauseIsPartOfTheText(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := Write(dir, State{Problems: []*problem.Problem{{Code: "a", Path: "/p", Text: "wrong", Err: errors.New("cause")}}}); err != nil {
		t.Fatal(err)
	}
	got, err := Read(filepath.Join(dir, name))
	if err != nil || got.Problems[0].Error() != "/p: wrong: cause" {
		t.Errorf("%+v, %v", got.Problems, err)
	}
}

func TestAnyStateFitsIntoTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var s State
	for i := range 1000 {
		s.Refused = append(s.Refused, Refused{UID: uint32(i), Group: strings.Repeat("/é\x01", 3000)})
		s.Problems = append(s.Problems, &problem.Problem{Code: problem.Code(fmt.Sprint(i)), Text: strings.Repeat("\x01", 5000)})
	}
	if err := Write(dir, s); err != nil {
		t.Fatal(err)
	}
	got, err := Read(filepath.Join(dir, name))
	if err != nil || len(got.Problems) == 0 || got.Problems[0].Code != "0" {
		t.Errorf("%d problems, %v", len(got.Problems), err)
	}
	s.Problems = s.Problems[:1]
	if err := Write(dir, s); err != nil {
		t.Fatal(err)
	}
	if got, err = Read(filepath.Join(dir, name)); err != nil || len(got.Refused) == 0 || got.Refused[0].UID != 0 {
		t.Errorf("%d callers, %v", len(got.Refused), err)
	}
}

func TestOnlyAFileOfTheDaemonsIsBelieved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := Write(dir, example()); err != nil {
		t.Fatal(err)
	}
	whole := filepath.Join(dir, name)
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	file := func(what string, content []byte) string {
		path := filepath.Join(t.TempDir(), what)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(whole, link); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for what, path := range map[string]string{
		"a link": link, "a pipe": fifo, "a folder": dir,
		"half a file":      file("half", data[:len(data)/2]),
		"a list":           file("list", []byte("[1]")),
		"an empty problem": file("null", []byte(`{"problems":[null]}`)),
		"a huge file":      file("huge", []byte(strings.Repeat(" ", maxSize)+"{}")),
	} {
		if s, err := Read(path); err == nil {
			t.Errorf("%s is read as %+v", what, s)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may give a file to another user")
	}
	if err := os.Chown(whole, 4711, 4711); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(whole); err == nil {
		t.Error("a file of another user is read")
	}
	if _, err := Read(whole, 4711); err != nil {
		t.Errorf("a file of the daemon's user: %v", err)
	}
}

func TestWriteFollowsNoLink(t *testing.T) {
	t.Parallel()
	dir, other := t.TempDir(), t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(other, link); err != nil {
		t.Fatal(err)
	}
	if err := Write(link, example()); err == nil {
		t.Error("written through a link")
	}
	if err := Write(filepath.Join(dir, "missing"), example()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder: %v", err)
	}
}
