// Package mirrors tests upstreams that are mirrors: with a prefix, with ns and optional ones, real
// ones and such as are half dead, and which login each of them gets.
package mirrors

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
)

func TestMain(m *testing.M) { harness.Main(m) }

// engines are real clients, configured to pull docker.io and reg.test through one sidemirror. There
// is no way from here to either registry without it.
type engines struct {
	t          *testing.T
	side       *harness.Sidemirror
	containerd *engine.Containerd
	docker     *engine.Docker
}

func newEngines(t *testing.T, side *harness.Sidemirror) *engines {
	t.Helper()
	engine.NeedRoot(t)
	folder := t.TempDir()
	for _, registry := range []string{"docker.io", "reg.test"} {
		toml := fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", side.URL())
		write(t, filepath.Join(folder, registry, "hosts.toml"), toml)
	}
	config := filepath.Join(t.TempDir(), "daemon.json")
	write(t, config, fmt.Sprintf(`{"registry-mirrors": [%q]}`, side.URL()))
	return &engines{
		t: t, side: side,
		containerd: engine.StartContainerd(t, folder), docker: engine.StartDocker(t, engine.DockerOptions{Config: config}),
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// pull pulls docker.io/repository:tag by each engine. They verify the digest of what they get.
func (e *engines) pull(repository, tag string) {
	e.t.Helper()
	ctx := e.t.Context()
	if err := e.containerd.Pull(ctx, "docker.io/"+repository+":"+tag, ""); err != nil {
		e.t.Errorf("containerd: %v", err)
	}
	if err := e.docker.Pull(ctx, repository+":"+tag, ""); err != nil {
		e.t.Errorf("docker: %v", err)
	}
	if err := e.podman(e.side.Address() + "/docker.io/" + repository + ":" + tag); err != nil {
		e.t.Errorf("podman: %v", err)
	}
}

// podman runs podman pull with a storage of its own.
func (e *engines) podman(reference string) error {
	dir, err := os.MkdirTemp("", "p") // podman takes no long paths
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	policy := filepath.Join(dir, "policy.json")
	write(e.t, policy, `{"default":[{"type":"insecureAcceptAnything"}]}`)
	_, err = process.Run(e.t.Context(), []string{"XDG_RUNTIME_DIR=" + dir}, process.Path(e.t, "podman"),
		"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"),
		"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none",
		"pull", "--signature-policy", policy, "--quiet", "--tls-verify=false", reference)
	return err
}
