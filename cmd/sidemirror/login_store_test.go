package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/credential/sealed"
)

// noUnits is a service manager whose proxy could not decrypt a login.
type noUnits struct{}

func (noUnits) RunsBefore(context.Context, string, string) (bool, error) { return false, nil }

func TestWatchFindsLoginsThatAreNotEncrypted(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "logins")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "credentials.json")
	stores := &loginStores{
		file: credential.OpenStore(file), path: file, services: noUnits{},
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
