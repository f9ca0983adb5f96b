package sealed

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/credential/program"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// works is a systemd-creds that needs no root: it writes the credential's name and base64 of the
// text. The real one is used in test/boot.
const works = `
for a; do case $a in --name=*) name=${a#--name=} ;; esac; done
case $1 in
encrypt) echo "$name"; base64 ;;
decrypt) read -r is; [ "$is" = "$name" ] && base64 -d ;;
esac`

const canary = "canary-secret-71aa"

// open returns a store whose systemd-creds is a shell script, of a service that runs.
func open(t *testing.T, script string) *Store {
	t.Helper()
	folder, run := filepath.Join(t.TempDir(), "logins"), t.TempDir()
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	s := Open(folder, filepath.Join(run, DecryptedName))
	s.replaceTool(t, script)
	return s
}

func (s *Store) replaceTool(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, tool), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.programs = program.NewRunner([]string{dir}, []string{"PATH=/usr/bin:/bin"})
}

func (s *Store) mustPut(t *testing.T, key, user string) {
	t.Helper()
	path, err := s.Put(t.Context(), key, credential.Credential{Username: user, Password: credential.NewSecret(canary)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// running returns the user whose login the running service has for a repository, or the error.
func (s *Store) running(t *testing.T, registry, repository string) string {
	t.Helper()
	service := credential.OpenStore(filepath.Join(t.TempDir(), "none.json")).WithDecrypted(s.decrypted)
	c, err := service.Lookup(t.Context(), registry, repository)
	if err != nil {
		return err.Error()
	}
	if !c.IsZero() && c.Password.Reveal() != canary {
		t.Errorf("the password is %q", c.Password.Reveal())
	}
	return c.Username
}

func TestALoginIsEncryptedOnDiskAndUsedAtOnce(t *testing.T) {
	s := open(t, works)
	keys := []string{"[2001:db8::1]:5000/team/app", "docker.io", "localhost:5000/a__b", "quay.io"}
	for _, key := range keys {
		s.mustPut(t, key, strings.ReplaceAll(key, ":", "+"))
	}
	for _, key := range keys {
		registry, namespace, _ := strings.Cut(key, "/")
		if got := s.running(t, registry, namespace); got != strings.ReplaceAll(key, ":", "+") {
			t.Errorf("%s: the service has %q", key, got)
		}
		data, err := os.ReadFile(filepath.Join(s.folder, mustName(key)+suffix))
		if err != nil || strings.Contains(string(data), canary) {
			t.Errorf("%s: %v, %s", key, err, data)
		}
	}
	if got, err := s.Keys(); err != nil || !slices.Equal(sorted(got), keys) {
		t.Errorf("keys %q, %v", got, err)
	}
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}

func TestAServiceThatStartsGetsAllLoginsAndReasonsForTheOthers(t *testing.T) {
	s := open(t, works)
	s.mustPut(t, "quay.io", "quay")
	s.mustPut(t, "quay.io/org", "org")
	s.mustPut(t, "ghcr.io", "ghcr")
	s.mustPut(t, "gcr.io", "gcr")
	for key, text := range map[string]string{
		"ghcr.io": "damaged\n",
		// Another credential that root could decrypt, for another program.
		"gcr.io": mustName("quay.io") + "\nAAAA",
	} {
		if err := os.WriteFile(filepath.Join(s.folder, mustName(key)+suffix), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"registry-quay.io", "other.cred", "registry-UPPER.cred", "registry-.cred"} {
		if err := os.WriteFile(filepath.Join(s.folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := s.Decrypt(t.Context())
	if err == nil || !strings.Contains(err.Error(), "the login for ghcr.io") || !strings.Contains(err.Error(), "the login for gcr.io") {
		t.Errorf("decrypting: %v", err)
	}
	for _, tt := range []struct{ registry, repository, want string }{
		{"quay.io", "other/app", "quay"},
		{"quay.io", "org/app", "org"},
		{"docker.io", "library/alpine", ""},
	} {
		if got := s.running(t, tt.registry, tt.repository); got != tt.want {
			t.Errorf("%s/%s: got %q, want %q", tt.registry, tt.repository, got, tt.want)
		}
	}
	for _, registry := range []string{"ghcr.io", "gcr.io"} {
		if got := s.running(t, registry, "a/b"); !strings.Contains(got, "systemd-creds decrypt failed") || !strings.Contains(got, "sidemirror login "+registry) {
			t.Errorf("%s: got %q", registry, got)
		}
	}
	// Another login replaces the one that is of no use.
	s.mustPut(t, "ghcr.io", "new")
	if got := s.running(t, "ghcr.io", "a/b"); got != "new" {
		t.Errorf("after another login: %q", got)
	}
}

func TestALoginThatDoesNotComeBackAsItWasIsNotStored(t *testing.T) {
	for name, script := range map[string]string{
		"no encryption":    "exit 1",
		"no decryption":    `[ "$1" = encrypt ] && cat`,
		"something else":   `[ "$1" = decrypt ] && echo other; echo x`,
		"without an end":   "yes " + canary,
		"no such option":   "echo unknown option >&2; exit 1",
		"nothing":          ":",
		"does not read it": `exec <&-; exit 0`,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, works)
			s.mustPut(t, "quay.io", "old")
			s.replaceTool(t, script)
			path, err := s.Put(t.Context(), "quay.io", credential.Credential{Username: "new", Password: credential.NewSecret(canary)})
			if err == nil || path != "" || strings.Contains(err.Error(), canary) {
				t.Errorf("%q, %v", path, err)
			}
			s.replaceTool(t, works)
			if err := s.Decrypt(t.Context()); err != nil {
				t.Error(err)
			}
			if got := s.running(t, "quay.io", "a"); got != "old" {
				t.Errorf("the login is %q", got)
			}
		})
	}
}

func TestALogoutDeletesTheLoginOnDiskAndOfTheRunningService(t *testing.T) {
	s := open(t, works)
	s.mustPut(t, "quay.io", "me")
	s.mustPut(t, "quay.io/org", "org")
	if err := s.Delete(t.Context(), "quay.io"); err != nil {
		t.Fatal(err)
	}
	if got := s.running(t, "quay.io", "a"); got != "" {
		t.Errorf("the service has %q", got)
	}
	if got := s.running(t, "quay.io", "org/a"); got != "org" {
		t.Errorf("the namespace's login is %q", got)
	}
	if err := s.Delete(t.Context(), "quay.io"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a second time: %v", err)
	}
	if got, _ := s.Keys(); !slices.Equal(got, []string{"quay.io/org"}) {
		t.Errorf("keys %q", got)
	}
}

func TestAServiceThatDoesNotRunGetsTheLoginWhenItStarts(t *testing.T) {
	s := open(t, works)
	dir := filepath.Dir(s.decrypted)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	s.mustPut(t, "quay.io", "me")
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder of the service was made: %v", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.Decrypt(t.Context()); err != nil {
		t.Error(err)
	}
	if got := s.running(t, "quay.io", "a"); got != "me" {
		t.Errorf("the service has %q", got)
	}
}

func TestLoginsForWhichThereWasNoTimeHaveAReason(t *testing.T) {
	s := open(t, works)
	s.mustPut(t, "quay.io", "me")
	ctx, cancel := context.WithCancel(t.Context())
	s.replaceTool(t, "sleep 1000")
	folder, err := os.Open(s.folder)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	cancel()
	if err := s.decryptOne(ctx, folder, "quay.io"); err == nil {
		t.Error("no error")
	}
	if got := s.running(t, "quay.io", "a"); !strings.Contains(got, "it is encrypted, and") {
		t.Errorf("the service has %q", got)
	}
}

func TestAHostWithoutTheProgramOrTheFolderIsOfNoUse(t *testing.T) {
	s := open(t, works)
	if err := s.Usable(); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(s.folder, 0o777); err != nil {
		t.Fatal(err)
	}
	if s.Usable() == nil {
		t.Error("a folder that every user can write to is used")
	}
	if err := os.Remove(s.folder); err != nil {
		t.Fatal(err)
	}
	if s.Usable() == nil {
		t.Error("a folder that does not exist is used")
	}
	if err := s.Decrypt(t.Context()); err != nil {
		t.Errorf("a start without the folder: %v", err)
	}
	if err := s.Delete(t.Context(), "quay.io"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a logout without the folder: %v", err)
	}
	s.programs = program.NewRunner([]string{t.TempDir()}, nil)
	if s.Usable() == nil {
		t.Error("systemd-creds is not missed")
	}
}

func TestTheRegistriesThatHaveALoginAreKnownByNamesOfFiles(t *testing.T) {
	s := open(t, works)
	known := func(want ...string) {
		t.Helper()
		if got, err := Registries(s.folder); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	known()
	s.mustPut(t, "quay.io/org", "me")
	s.mustPut(t, "quay.io", "me")
	for _, key := range []string{"[2001:db8::1]:5000", "ghcr.io/a/b"} {
		if err := s.PutName(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.folder, "registry-..elsewhere"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	known("[2001:db8::1]:5000", "ghcr.io", "quay.io")
	if keys, err := s.Keys(); err != nil || slices.Contains(keys, "ghcr.io/a/b") {
		t.Errorf("encrypted logins %q, %v", keys, err)
	}
	s.mustPut(t, "ghcr.io/a/b", "me") // now it is encrypted
	for _, key := range []string{"ghcr.io/a/b", "quay.io", "[2001:db8::1]:5000"} {
		if err := s.Delete(t.Context(), key); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
	known("quay.io")
	if got, err := Registries(filepath.Join(s.folder, "none")); err != nil || got != nil {
		t.Errorf("without the folder: %q, %v", got, err)
	}
}
