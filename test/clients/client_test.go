// Package clients_test replays what users of real registry clients have reported, with those
// clients: crane, regctl, oras, skopeo, podman, containerd and Docker. The upstream is a registry
// of package quirky, since a real one cannot be made to show these faults.
package clients_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	name     = "reg.test"
	user     = "robot"
	password = "canary-password-77c1"
)

// stage is a sidemirror that serves reg.test and docker.io from one upstream.
type stage struct {
	t     *testing.T
	side  *harness.Sidemirror
	up    *quirky.Server
	login string // that the clients have for sidemirror, "user:password"; empty for none

	engines
}

// engines are a containerd and a dockerd that pull through a sidemirror at address.
type engines struct {
	address    string
	docker     *engine.Docker
	containerd *engine.Containerd
}

// newStage starts an upstream as o has it and a sidemirror in front of it, which knows the login
// if there is one.
func newStage(t *testing.T, e engines, o quirky.Options, change func(h *harness.Options)) *stage {
	t.Helper()
	up := quirky.New(t, o)
	h := harness.Options{}
	if e.address != "" {
		h.Listen = []string{e.address}
	}
	for _, served := range []string{name, "docker.io"} {
		r := harness.Registry{Name: served, Upstreams: []string{up.URL()}}
		if o.Auth.Users != nil {
			if h.Logins == nil {
				h.Logins = map[string]string{}
			}
			h.Logins[served] = user + ":" + password
		}
		h.Registries = append(h.Registries, r)
	}
	if change != nil {
		change(&h)
	}
	return &stage{t: t, side: harness.Start(t, h), up: up, engines: e}
}

// startEngines starts the engines. They are started once for many stages, which run one after
// another at the same address.
func startEngines(t *testing.T) engines {
	t.Helper()
	engine.NeedRoot(t)
	e := engines{address: harness.FreeAddress(t)}
	certs := t.TempDir()
	write(t, filepath.Join(certs, name, "hosts.toml"),
		fmt.Sprintf("server = %q\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", "https://"+name, "http://"+e.address))
	e.containerd = engine.StartContainerd(t, certs)
	config := filepath.Join(t.TempDir(), "daemon.json")
	write(t, config, fmt.Sprintf(`{"registry-mirrors":[%q]}`, "http://"+e.address))
	e.docker = engine.StartDocker(t, engine.DockerOptions{Config: config})
	return e
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs a program in an environment with the stage's login and returns its standard output.
func (s *stage) run(program string, args ...string) (string, error) {
	s.t.Helper()
	return process.Run(s.t.Context(), s.env(), process.Path(s.t, program), args...)
}

// env is the environment of a client, with folders of its own.
func (s *stage) env() []string {
	s.t.Helper()
	dir := s.t.TempDir()
	logins := filepath.Join(dir, "config.json")
	config := "{}"
	if s.login != "" {
		config = fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, s.side.Address(), base64.StdEncoding.EncodeToString([]byte(s.login)))
	}
	write(s.t, logins, config)
	write(s.t, filepath.Join(dir, "regctl.json"), fmt.Sprintf(`{"hosts":{%q:{"tls":"disabled"}}}`, s.side.Address()))
	return []string{
		"DOCKER_CONFIG=" + dir, "XDG_RUNTIME_DIR=" + dir, "REGISTRY_AUTH_FILE=" + logins,
		"REGCTL_CONFIG=" + filepath.Join(dir, "regctl.json"),
	}
}

// byPrefix is the reference of a repository of reg.test through sidemirror.
func (s *stage) byPrefix(reference string) string {
	return s.side.Address() + "/" + name + "/" + reference
}

// client pulls what repository:tag means through sidemirror. A registry client verifies the
// digests of what it gets, so that its success says that every byte is right; and neither
// reg.test nor docker.io can be reached from here without sidemirror.
type client struct {
	name string
	pull func(s *stage, reference string) error

	// gets is whether the client asks for a tag by GET, without HEAD before.
	gets bool
}

var clients = []client{
	{"crane", func(s *stage, reference string) error {
		_, err := s.run("crane", "pull", "--insecure", "--format=oci", s.byPrefix(reference), s.t.TempDir())
		return err
	}, true},
	{"regctl", func(s *stage, reference string) error {
		_, err := s.run("regctl", "image", "copy", s.byPrefix(reference), "ocidir://"+s.t.TempDir()+":pulled")
		return err
	}, false},
	{"oras", func(s *stage, reference string) error {
		_, err := s.run("oras", "copy", "--from-plain-http", "--to-oci-layout", s.byPrefix(reference), s.t.TempDir()+":pulled")
		return err
	}, false},
	{"skopeo", func(s *stage, reference string) error {
		_, err := s.run("skopeo", "copy", "--preserve-digests", "--src-tls-verify=false", "docker://"+s.byPrefix(reference), "dir:"+s.t.TempDir())
		return err
	}, true},
	{"podman", func(s *stage, reference string) error {
		_, err := s.podmanPull(s.byPrefix(reference))
		return err
	}, true},
	{"containerd", func(s *stage, reference string) error {
		return s.containerd.Pull(s.t.Context(), name+"/"+reference, "")
	}, false},
	{"docker", func(s *stage, reference string) error {
		return s.docker.Pull(s.t.Context(), reference, "")
	}, false},
}

// podmanPull runs podman pull with a storage of its own.
func (s *stage) podmanPull(reference string) (string, error) {
	s.t.Helper()
	engine.NeedRoot(s.t)
	dir, err := os.MkdirTemp("", "p") // podman takes no long paths
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // podman may leave a mount there, which it reports itself
	policy := filepath.Join(dir, "policy.json")
	write(s.t, policy, `{"default":[{"type":"insecureAcceptAnything"}]}`)
	return s.run("podman", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"),
		"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none",
		"pull", "--signature-policy", policy, "--quiet", "--tls-verify=false", reference)
}
