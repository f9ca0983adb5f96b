// Package release makes releases of this checkout with packaging/release.sh, signed with a key that
// is thrown away.
package release

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Key makes a signing key and returns the file with it.
func Key(t testing.TB) string {
	t.Helper()
	home, err := os.MkdirTemp("", "gpg") // short, because gpg-agent's socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		_ = os.RemoveAll(home)
	})
	env := []string{"GNUPGHOME=" + home}
	if _, err := run(env, "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "sidemirror test <test@example.test>", "rsa3072", "sign", "1d"); err != nil {
		t.Fatal(err)
	}
	armored, err := run(env, "gpg", "--batch", "--armor", "--export-secret-keys")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "key.asc")
	if err := os.WriteFile(name, armored, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// Build adds the release of a version to a folder that is published at url. env has further settings
// of packaging/release.sh.
func Build(t testing.TB, folder, url, key, version string, env ...string) {
	t.Helper()
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal(errors.New("the folder of this package is unknown"))
	}
	script := filepath.Join(filepath.Dir(here), "../../packaging/release.sh")
	env = append([]string{"VERSION=" + version, "SIGNING_KEY=" + key, "REPOSITORY_URL=" + url, "GOFLAGS="}, env...)
	if _, err := run(env, script, folder); err != nil {
		t.Fatal(err)
	}
}

// run runs a program and returns what it prints.
func run(env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%s: %w\n%s", cmd, err, exit.Stderr)
		}
		return nil, err
	}
	return out, nil
}
