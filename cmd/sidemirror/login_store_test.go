package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/credential/sealed"
)

// fakeUnits is a systemd whose unit of the proxy decrypts logins, does not, or cannot be asked about.
type fakeUnits struct {
	decrypts bool
	err      error
}

func (f fakeUnits) RunsBefore(context.Context, string, string) (bool, error) {
	return f.decrypts, f.err
}

func TestALoginThatCannotBeEncryptedIsStoredWithANote(t *testing.T) {
	for name, services := range map[string]fakeUnits{
		"a unit that does not decrypt": {},
		"no systemd":                   {err: errors.New("connection refused")},
	} {
		t.Run(name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "logins")
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "credentials.json")
			s := &loginStores{file: credential.OpenStore(path), path: path, sealed: sealed.Open(folder, filepath.Join(t.TempDir(), "credentials.json")), services: services}
			c := credential.Credential{Username: "me", Password: credential.NewSecret("c4n4ry-right")}
			file, note, err := s.put(t.Context(), "quay.io/org", c)
			if err != nil || file != path || note == nil || note.Code != "login-not-encrypted" {
				t.Fatalf("%q, %v, %v", file, note, err)
			}
			if strings.Contains(note.Error(), "c4n4ry") || !strings.Contains(note.Error(), "unencrypted") {
				t.Errorf("the note is %v", note)
			}
			if got, err := s.file.Lookup(t.Context(), "quay.io", "org/app"); err != nil || got.Username != "me" {
				t.Errorf("%q, %v", got.Username, err)
			}
			if keys, err := s.keys(); err != nil || !slices.Equal(keys, []string{"quay.io/org"}) {
				t.Errorf("%q, %v", keys, err)
			}
			if err := s.remove(t.Context(), "quay.io/org"); err != nil {
				t.Error(err)
			}
			if err := s.remove(t.Context(), "quay.io/org"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a second time: %v", err)
			}
			if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
				t.Errorf("%v is left, %v", left, err)
			}
		})
	}
}

func TestWatchFindsLoginsThatAreNotEncrypted(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "logins")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "credentials.json")
	stores := &loginStores{
		file: credential.OpenStore(file), path: file, services: fakeUnits{},
		sealed: sealed.Open(folder, filepath.Join(dir, "run", "credentials.json")),
	}
	login := credential.Credential{Username: "me", Password: credential.NewSecret(rightPassword)}
	for _, key := range []string{"r.example:5000/org", "q.example"} {
		if _, note, err := stores.put(t.Context(), key, login); err != nil || note == nil || note.Code != "login-not-encrypted" {
			t.Fatalf("%s: %v, %v", key, note, err)
		}
	}
	if names, err := sealed.Registries(folder); err != nil || !slices.Equal(names, []string{"q.example", "r.example:5000"}) {
		t.Errorf("%q, %v", names, err)
	}
	if err := stores.remove(t.Context(), "q.example"); err != nil {
		t.Error(err)
	}
	if err := stores.remove(t.Context(), "q.example"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a second time: %v", err)
	}
	if names, err := sealed.Registries(folder); err != nil || !slices.Equal(names, []string{"r.example:5000"}) {
		t.Errorf("after the logout: %q, %v", names, err)
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if _, note, err := stores.put(t.Context(), "q.example", login); err != nil || note == nil {
		t.Errorf("without the folder: %v, %v", note, err)
	}
}
