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
