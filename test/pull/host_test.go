package pull_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
)

// host is a host tree in a folder, on which the real binary writes the engines'
// configuration.
type host struct {
	root   string
	config string
}

// newHost makes a tree on which both engines are present, containerd told to read
// certs.d as its packages' documentation has it.
func newHost(t testing.TB, s *harness.Sidemirror) *host {
	t.Helper()
	h := &host{root: t.TempDir(), config: filepath.Join(s.Dir(), "config.toml")}
	for path, content := range map[string]string{
		"etc/docker/daemon.json": "{\n    \"log-driver\": \"json-file\"\n}\n",
		"etc/containerd/config.toml": "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n" +
			"  config_path = \"/etc/containerd/certs.d\"\n",
	} {
		path = filepath.Join(h.root, path)
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644))
		if err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// run runs a command of sidemirror's, as apply, on the tree.
func (h *host) run(t testing.TB, command string) {
	t.Helper()
	_, err := process.Run(t.Context(), nil, harness.Binary(t), command, "--root", h.root, "--config", h.config)
	if err != nil {
		t.Fatal(err)
	}
}

// certs is containerd's folder of hosts.toml files, docker Docker's daemon.json.
func (h *host) certs() string  { return filepath.Join(h.root, "etc/containerd/certs.d") }
func (h *host) docker() string { return filepath.Join(h.root, "etc/docker/daemon.json") }

// digests hashes every file below a folder: an OCI layout, a content store,
// whatever a client keeps what it pulled in.
func digests(t testing.TB, folder string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		digest, err := sum(file)
		found[digest] = true
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func sum(r io.Reader) (string, error) {
	hash := sha256.New()
	_, err := io.Copy(hash, r)
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), err
}
