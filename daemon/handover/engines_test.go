package handover

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestEnginesAreReadAsTheyWereWrittenUntilTheyAreRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := ReadEngines(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before the first one was written: %v", err)
	}
	for _, want := range [][]Engine{{{Name: "docker", Mirror: "active", HubOnly: true, Repairs: 4}, {Name: "containerd", Home: "k3s", Mirror: "partial"}}, nil} {
		if err := WriteEngines(dir, want); err != nil {
			t.Fatal(err)
		}
		got, err := ReadEngines(dir)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	if err := RemoveEngines(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadEngines(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after they were removed: %v", err)
	}
}

func TestNothingIsWrittenWhereThereIsNoFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "missing")
	if err := errors.Join(WriteEngines(dir, []Engine{{Name: "docker"}}), RemoveEngines(dir)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}
}

func TestEnginesThatCannotBeBelievedAreRefused(t *testing.T) {
	t.Parallel()
	many := `{"version":1,"engines":[` + strings.Repeat(`{"engine":"a"},`, maxEngines) + `{"engine":"a"}]}`
	for name, text := range map[string]string{
		"other version": `{"version":2}`, "no JSON": `docker`, "no name": `{"version":1,"engines":[{}]}`,
		"long name":          `{"version":1,"engines":[{"engine":"` + strings.Repeat("x", maxEngineName+1) + `"}]}`,
		"repairs below zero": `{"version":1,"engines":[{"engine":"a","repairs":-1}]}`, "repairs too large": `{"version":1,"engines":[{"engine":"a","repairs":9223372036854775808}]}`,
		"too many": many, "too long": strings.Repeat(" ", maxSize+1),
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, enginesName)
		if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadEngines(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	dir := t.TempDir()
	if err := WriteEngines(dir, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, enginesName), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadEngines(dir); err == nil {
		t.Error("a file that every user may write is believed")
	}
}

func FuzzEngines(f *testing.F) {
	f.Add([]byte(`{"version":1,"engines":[{"engine":"docker","mirror":"active"}]}`))
	f.Add([]byte(`{"version":1,"engines":[null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		engines, err := decodeEngines(data)
		if err != nil && engines != nil || len(engines) > maxEngines {
			t.Fatalf("%d engines, %v", len(engines), err)
		}
		for _, e := range engines {
			if e.Name == "" {
				t.Fatal("an engine has no name")
			}
		}
	})
}
