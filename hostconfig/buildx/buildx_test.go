package buildx

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	mirror = "172.17.0.1:305"
	theirs = "# mine\n[worker.oci]\n  max-parallelism = 4\n\n[registry.\"docker.io\"]\n  mirrors = [\"m.corp\"]"
)

var registries = []string{"docker.io", "ghcr.io"}

func contents(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func set(t *testing.T, file, at string, want bool) {
	t.Helper()
	if changed, err := Set(file, at, registries); err != nil || changed != want {
		t.Fatalf("set: %v, %v", changed, err)
	}
}

func TestFileOfAUserIsRestoredToTheByte(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "buildkitd.default.toml")
	if err := os.WriteFile(file, []byte(theirs), 0o640); err != nil {
		t.Fatal(err)
	}
	set(t, file, mirror, true)
	set(t, file, mirror, false)
	if text := contents(t, file); !strings.Contains(text, `mirrors = ["172.17.0.1:305", "m.corp"]`) || !strings.Contains(text, "[registry.\"172.17.0.1:305\"]\n  http = true") {
		t.Errorf("after set:\n%s", text)
	}
	set(t, file, "172.18.0.1:305", true)
	if text := contents(t, file); strings.Contains(text, "172.17") || !strings.Contains(text, "172.18.0.1:305") {
		t.Errorf("with another address:\n%s", text)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if changed, err := Unset(file, nil); err != nil || !changed || contents(t, file) != theirs {
		t.Errorf("after unset (%v, %v):\n%s", changed, err, contents(t, file))
	}
	if changed, err := Unset(file, nil); err != nil || changed {
		t.Errorf("a second unset: %v, %v", changed, err)
	}
}

func TestFileThatIsSidemirrorsAloneIsRemoved(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), ".docker/buildx/buildkitd.default.toml")
	if changed, err := Unset(file, nil); err != nil || changed {
		t.Errorf("unset without a folder: %v, %v", changed, err)
	}
	set(t, file, mirror, true)
	if changed, err := Unset(file, nil); err != nil || !changed {
		t.Errorf("unset: %v, %v", changed, err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestWhatAnotherProgramAddedStays(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "buildkitd.default.toml")
	set(t, file, mirror, true)
	const added = "\n[grpc]\n  debugAddress = \"0.0.0.0:6060\"\n"
	if err := os.WriteFile(file, []byte(contents(t, file)+added), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := Unset(file, nil); err != nil || !changed || strings.TrimSpace(contents(t, file)) != strings.TrimSpace(added) {
		t.Errorf("%v, %v:\n%s", changed, err, contents(t, file))
	}
}

func TestLinkToAFileIsFollowed(t *testing.T) {
	t.Parallel()
	real, link := filepath.Join(t.TempDir(), "dotfile"), filepath.Join(t.TempDir(), "buildkitd.default.toml")
	if err := os.WriteFile(real, []byte(theirs), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	set(t, link, mirror, true)
	if to, err := os.Readlink(link); err != nil || to != real || !strings.Contains(contents(t, real), mirror) {
		t.Errorf("the link leads to %q, %v", to, err)
	}
}

func TestFileThatCannotBeEditedIsLeftAlone(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "buildkitd.default.toml")
	const broken = "[registry\n"
	if err := os.WriteFile(file, []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := Set(file, mirror, registries); err == nil || changed || contents(t, file) != broken {
		t.Errorf("%v, %v:\n%s", changed, err, contents(t, file))
	}
}

func TestFileIsWhereBuildxLooks(t *testing.T) {
	t.Parallel()
	for want, env := range map[string]map[string]string{
		"/home/a/.docker/buildx/buildkitd.default.toml": {},
		"/d/buildx/buildkitd.default.toml":              {"DOCKER_CONFIG": "/d"},
		"/b/buildkitd.default.toml":                     {"DOCKER_CONFIG": "/d", "BUILDX_CONFIG": "/b"},
	} {
		if got := File("/home/a", func(name string) string { return env[name] }); got != want {
			t.Errorf("%v: %s", env, got)
		}
	}
}
