package engine_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/engine/cri"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/registry"
)

func TestMain(m *testing.M) { harness.Main(m) }

// The engines must pull from the test registry without us, or their pulls
// through us would prove nothing.
func TestEnginesPullFromTheTestRegistryWithoutUs(t *testing.T) {
	engine.NeedRoot(t)
	hub := registry.Start(t, registry.Options{})
	image := hub.Push(t, "alice/app", "v1", registry.Shape{Index: true, Size: 1 << 16})
	certs := t.TempDir()
	folder := filepath.Join(certs, "reg.test")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	toml := fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", hub.URL)
	if err := os.WriteFile(filepath.Join(folder, "hosts.toml"), []byte(toml), 0o644); err != nil {
		t.Fatal(err)
	}

	t.Run("containerd", func(t *testing.T) {
		containerd := engine.StartContainerd(t, certs)
		if err := containerd.Pull(t.Context(), "reg.test/alice/app:v1", ""); err != nil {
			t.Error(err)
		}
		got, err := cri.Pull(t.Context(), containerd.Socket, "reg.test/alice/app:v1", "", "")
		if err != nil {
			t.Fatal(err)
		}
		if want := "reg.test/alice/app@" + image.Digest; !slices.Contains(got, want) {
			t.Errorf("CRI pulled %q, want %s", got, want)
		}
	})
	t.Run("docker", func(t *testing.T) {
		config := filepath.Join(t.TempDir(), "daemon.json")
		if err := os.WriteFile(config, fmt.Appendf(nil, `{"registry-mirrors": [%q]}`, hub.URL), 0o644); err != nil {
			t.Fatal(err)
		}
		docker := engine.StartDocker(t, engine.DockerOptions{Config: config})
		if err := docker.Pull(t.Context(), "alice/app:v1", ""); err != nil {
			t.Fatal(err)
		}
		got, err := docker.Image(t.Context(), "alice/app:v1")
		if err != nil {
			t.Fatal(err)
		}
		if len(got.RepoDigests) != 1 || !strings.HasSuffix(got.RepoDigests[0], image.Digest) {
			t.Errorf("docker pulled %q, want %s", got.RepoDigests, image.Digest)
		}
	})
}
